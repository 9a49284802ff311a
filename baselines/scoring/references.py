"""What scores are measured between: welfare without trade and at the optimum, kept once they are computed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float

import peergrid
from peergrid.baselines.episode.play import play_day
from peergrid.baselines.episode.processes import run_all
from peergrid.baselines.policies.cases import environment_for
from peergrid.baselines.policies.fixed import NoTrade
from peergrid.baselines.scoring.score import Scored, evaluate, optimal_welfare, score
from peergrid.envs.common.policy import Policy
from peergrid.envs.p2p_trading.env import P2PTrading
from peergrid.envs.p2p_trading.scenario import Scenario
from peergrid.grid.errors import InvalidDataset
from peergrid.grid.files import write_json


@dataclass(frozen=True, eq=False, kw_only=True)
class References:
    """Welfare of each held-out day from day `first` on, in currency: the zero and the hundred of the score."""

    first: int = 0
    no_trade: Float[np.ndarray, " day"]
    optimum: Float[np.ndarray, " day"]

    def as_lists(self) -> dict[str, list[float]]:
        """Both, as JSON has them."""
        return {"no_trade": self.no_trade.tolist(), "optimum": self.optimum.tolist()}

    def score(self, welfare: Float[np.ndarray, " day"]) -> float:
        """The score of a policy from its welfare on the first days."""
        n = len(welfare)
        return score(welfare.tolist(), self.no_trade[:n].tolist(), self.optimum[:n].tolist())


def references(scenario: Scenario, days: int, cache: Path, workers: int = 1, first: int = 0) -> References:
    """Those of held-out days `first`, `first` + 1 ... of a scenario; read from the cache where it has them.

    Raises:
        InvalidDataset: What the cache has is damaged.
    """
    scenario = replace(scenario, cooperation=0.0, over_no_trade=False)  # what learners are paid moves no welfare
    path = cache / f"{scenario.name}-{digest(scenario)}-{first}-{days}.json"
    if path.is_file():
        return _read(path, first, days)
    each = range(first, first + days)
    found = References(
        first=first,
        no_trade=np.array(run_all(partial(_no_trade, scenario), each, workers, "no trade")),
        optimum=np.array(run_all(partial(optimal_welfare, scenario), each, workers, "optimum")),
    )
    write_json(path, {"scenario": asdict(scenario), "no_trade": found.no_trade, "optimum": found.optimum})
    return found


def _read(path: Path, first: int, days: int) -> References:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        no_trade, optimum = (np.array(known[name], dtype=float) for name in ("no_trade", "optimum"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidDataset(f"{path} is damaged: delete it, and it is computed anew ({error!r})") from None
    if not (no_trade.shape == optimum.shape == (days,) and np.isfinite([no_trade, optimum]).all()):
        raise InvalidDataset(f"{path} does not hold finite welfare of {days} days: delete it, and it is computed anew")
    return References(first=first, no_trade=no_trade, optimum=optimum)


def score_policy(
    scenario: Scenario,
    predictor: str,
    policy: Policy,
    known: References,
    name: str,
    predicted_intervals: int | None = None,
) -> Scored:
    """A policy's score and side metrics over the held-out days of the references; `name` is what it is called.

    Args:
        predicted_intervals: How far the prediction looks, as `Simulation` has it.
    """
    env = environment_for(policy, scenario, predictor=predictor, predicted_intervals=predicted_intervals)
    played = [play_day(env, policy, known.first + k) for k in range(len(known.no_trade))]
    return evaluate(scenario, name, played, known.no_trade.tolist(), known.optimum.tolist())


def digest(scenario: Scenario) -> str:
    """Twelve hexadecimal digits that stand for a scenario and the version that plays it."""
    content = json.dumps([peergrid.__version__, asdict(scenario)], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def _no_trade(scenario: Scenario, day: int) -> float:
    return play_day(P2PTrading(scenario, predictor="none"), NoTrade(), day).welfare
