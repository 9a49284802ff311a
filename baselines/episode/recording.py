"""What policies do on training days, as a data set for learning without the market.

Every policy plays the same days. An episode is a day of one microgrid, or with player=central of the controller of all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
from tqdm import tqdm

import peergrid
from peergrid.baselines.episode.recorded import WRITERS, Episodes
from peergrid.baselines.policies.cases import rules_for
from peergrid.baselines.policies.learned import policy_of
from peergrid.envs.common.policy import BatchPolicy
from peergrid.envs.common.rollout import rollout
from peergrid.envs.p2p_trading.players import PLAYERS, RowByRow, Solo, Trader, player_of
from peergrid.envs.p2p_trading.scenario import Scenario
from peergrid.envs.p2p_trading.simulation import Simulation
from peergrid.grid.errors import PeergridError, UnknownName
from peergrid.grid.parts import NAMES_A_PART, part_name, resolve


@dataclass
class RecordSettings:
    """What `conf/record.yaml` sets."""

    scenario: dict[str, Any] = field(default_factory=dict)
    predictor: str = part_name("auto")
    predicted_intervals: int | None = None
    policies: list[str] = field(default_factory=list, metadata=NAMES_A_PART)
    player: str = "shared"
    days: int = 64
    markets: int = 64
    seed: int = 0
    threads: int = 1
    output: str = "outputs/datasets"
    redo: bool = False


def record(settings: RecordSettings, scenario: Scenario, folder: Path) -> dict[str, Any]:
    """Write a data set to a folder, and return where it is, how long it is and what each policy was paid a day.

    Raises:
        UnknownName: No policy or player has the name.
        PeergridError: A policy plays by rules of its own, or there is none.
    """
    if settings.player not in PLAYERS:
        raise UnknownName("player", settings.player, PLAYERS)
    write_dataset: Callable[..., Path] = resolve("minari", "format", WRITERS)  # if it is missing, missed at once
    _check_policies(settings, scenario)
    rmtree(folder / "peergrid", ignore_errors=True)  # what an interrupted recording left
    simulation = Simulation(
        scenario,
        num_envs=min(settings.markets, settings.days),
        predictor=settings.predictor,
        predicted_intervals=settings.predicted_intervals,
    )
    player = player_of(settings.player, simulation)
    paid: dict[str, list[float]] = {name: [] for name in settings.policies}
    with tqdm(total=len(settings.policies) * settings.days, desc="days", disable=None, leave=False) as bar:

        def parts() -> Iterator[Episodes]:
            for k, name in enumerate(settings.policies):
                bar.set_postfix(policy=Path(name).stem)
                for first in range(0, settings.days, simulation.num_envs):
                    part = play(player, name, k, settings, first)
                    paid[name] += part.rewards.sum(axis=-1).tolist()
                    bar.update(min(simulation.num_envs, settings.days - first))
                    yield part

        about = {
            "scenario": scenario.name,
            "settings": asdict(settings),
            "predictor": settings.predictor,
            "player": settings.player,
            "policies": settings.policies,
            "seed": settings.seed,
            "terminates": player.simulation.terminates,
            "entries": [entry.name for entry in player.entries],
            "version": peergrid.__version__,
        }
        where = write_dataset(folder, player.entries, player.n_numbers, parts(), about)
    return {
        "dataset": str(where),
        "episodes": sum(map(len, paid.values())),
        "intervals": simulation.params.intervals,
        "paid": {name: float(np.mean(values)) for name, values in paid.items()},
    }


def _check_policies(settings: RecordSettings, scenario: Scenario) -> None:
    """Miss what is missing before the first day is played."""
    if not settings.policies:
        raise PeergridError("policies is empty: name at least one, as policies=[truthful,optimal]")
    for name in settings.policies:
        if rules_for(policy_of(name), scenario) != {"scenario": scenario}:
            raise PeergridError(f"policy {name!r} plays by rules of its own, which are not those of the data set")


def play(player: Trader, name: str, place: int, settings: RecordSettings, first: int) -> Episodes:
    """Days `first`, `first` + 1 ... as a policy plays them, one in each market.

    Args:
        place: The policy's place in the list.
    """
    simulation: Simulation = player.simulation
    simulation.reset(seed=settings.seed + first)
    everywhere, n_market, n_slot = np.ones(simulation.num_envs, dtype=bool), simulation.num_envs, player.slots_per_row
    chosen: Any = policy_of(name, settings.seed)
    policy: BatchPolicy = chosen if isinstance(chosen, BatchPolicy) else RowByRow(chosen, simulation)
    policy.begin_rows(simulation, everywhere)
    player.begin(everywhere)
    seen, actions, rewards = [player.see()], [], []

    def choose() -> np.ndarray:
        decided = np.asarray(policy.act_rows(simulation, simulation.seen), dtype=np.float64)
        own = decided[:, player.place] if isinstance(player, Solo) else decided.reshape(-1, player.n_numbers)
        actions.append(own)
        return player.act(own)

    for step in rollout(simulation, choose, simulation.step):
        seen.append(player.see())
        rewards.append(player.pay(step.outcome))
    day, slot = np.divmod(np.arange(n_market * n_slot), n_slot)
    wanted = first + day < settings.days
    return Episodes(
        seen=np.stack(seen, axis=1)[wanted],
        actions=np.stack(actions, axis=1).astype(np.float32)[wanted],
        rewards=np.stack(rewards, axis=1).astype(np.float32)[wanted],
        policy=np.full(wanted.sum(), place),
        day=first + day[wanted],
        slot=slot[wanted],
    )
