"""Which questions are drawn for the data set, and from which distributions.

drawn                 from
day, hour             the scenario's profiles: training days, or held-out days for subsets that test
load                  the day's, times `load_scale`, uniform
reactive load         the day's, times the same and `reactive_scale`, uniform
LMP                   the day's, times `lmp_scale`, uniform
PV                    the day's, times 1 + `solar_spread` times a standard normal, not below 0
lambda_corr           half the time the scenario's own, else that times a log-uniform number from `lambda_scale`
c_ls                  half the time the scenario's own, else that times a log-uniform number from `c_ls_scale`, or,
                      where its own is 0, log-uniform from `c_ls_per_kw2h`
proposals             each microgrid for itself, in shares of `PROPOSALS`: dispatched under the drawn sun and a
                      random use of its battery, at a price near the LMP or any; uniform between its full import
                      and its full export; one of these two; none
"""

from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from importlib.metadata import version

import numpy as np
from jaxtyping import Float, Int

from peergrid.envs.common.profiles import DayShape, evaluation_days, training_days
from peergrid.envs.microgrid import Interval, export_at, export_range
from peergrid.envs.p2p_trading.scenario import Scenario, build_profiles
from peergrid.envs.p2p_trading.simulation import build_days, build_params
from peergrid.envs.p2p_trading.types import Params
from peergrid.grid.dso import OpfDso
from peergrid.surrogate.questions import Questions, network_digest
from peergrid.surrogate.samples import Samples, label

FORMAT = 1  # of the data set's files
PROPOSALS = {
    "dispatched near the LMP": 0.25,
    "dispatched at any price": 0.15,
    "uniform": 0.4,
    "full": 0.17,
    "none": 0.03,
}


@dataclass(frozen=True)
class Sampling:
    """The distribution of the questions of one subset; ranges are [from, to]."""

    days: int = 400
    held_out_days: bool = False
    hours: tuple[int, ...] = tuple(range(24))
    load_scale: tuple[float, float] = (0.8, 1.1)
    reactive_scale: tuple[float, float] = (0.85, 1.15)
    lmp_scale: tuple[float, float] = (0.8, 1.25)
    solar_spread: float = 0.2
    lambda_scale: tuple[float, float] = (0.4, 2.5)
    c_ls_per_kw2h: tuple[float, float] = (1e-4, 1e-1)
    c_ls_scale: tuple[float, float] = (0.1, 10.0)
    proposal_scale: float = 1.0


@dataclass(frozen=True)
class Shard:
    """Which shard: all that its content depends on."""

    scenario: Scenario
    subset: str
    sampling: Sampling
    seed: int
    number: int
    days: int

    def fingerprint(self) -> str:
        """What tells this shard's settings from others'; kept in its file."""
        known = asdict(self) | {"format": FORMAT, "proposals": PROPOSALS, "peergrid": version("peergrid")}
        known["network"] = network_digest(operator_of(self.scenario))
        return hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode()).hexdigest()


def draw(shard: Shard) -> Samples:
    """The samples of a shard: questions drawn, answers solved."""
    hour, questions, _ = draw_questions(shard)
    return label(operator_of(shard.scenario), hour, questions)


def operator_of(scenario: Scenario) -> OpfDso:
    """The DSO that is asked in a scenario; built once."""
    return _parts(scenario)[1]


@lru_cache(maxsize=4)
def _parts(scenario: Scenario) -> tuple[Params, OpfDso]:
    params = build_params(scenario)
    assert isinstance(params.dso, OpfDso)
    return params, params.dso


def draw_questions(
    shard: Shard,
) -> tuple[Int[np.ndarray, " row"], Questions[np.ndarray], Float[np.ndarray, "row trade"]]:
    """The hours and the questions of a shard, and the PV behind each proposal over the day's own; NaN without sun."""
    params, dso = _parts(shard.scenario)
    rng = np.random.default_rng([shard.seed, zlib.crc32(shard.subset.encode()), shard.number])
    sampling, scenario = shard.sampling, shard.scenario
    per_day = round(24.0 / params.step_hours)
    shape = DayShape(
        intervals=per_day,
        step_hours=params.step_hours,
        bus=params.feeder.bus,
        demand_class=tuple(m.demand_class for m in scenario.microgrids),
    )
    source = build_profiles(scenario)
    known = evaluation_days(source.n_days) if sampling.held_out_days else training_days(source.n_days)
    drawn = [source.draw(shape, known[int(rng.integers(len(known)))], rng) for _ in range(shard.days)]
    days = build_days(scenario, replace(params, intervals=per_day), drawn)
    hours = (np.arange(per_day) * params.step_hours).astype(int)
    chosen = np.flatnonzero(np.isin(hours, sampling.hours))

    def rows(values: Float[np.ndarray, "day time *more"]) -> np.ndarray:
        return values[:, chosen].reshape(-1, *values.shape[2:])

    n, n_trade = shard.days * len(chosen), len(params.agent_bus)

    def between(ends: tuple[float, float]) -> Float[np.ndarray, " row"]:
        return rng.uniform(*ends, n)

    def log_between(ends: tuple[float, float]) -> Float[np.ndarray, " row"]:
        return np.exp(rng.uniform(np.log(ends[0]), np.log(ends[1]), n))

    scale = between(sampling.load_scale)[:, None]
    lmp = rows(days.lmp_per_kwh) * between(sampling.lmp_scale)
    sun = np.maximum(1.0 + sampling.solar_spread * rng.standard_normal((n, n_trade)), 0.0)
    pv_kw = rows(days.pv_kw)
    interval = Interval(
        pv_kw=pv_kw * sun,
        demand_kw=rows(days.demand_kw),
        alpha_per_kw2h=rows(days.alpha_per_kw2h),
        battery_kw=np.zeros((n, n_trade)),
    )
    own_lambda = np.broadcast_to(dso.penalty.lambda_corr_per_kw2h, n)
    own_c_ls = np.broadcast_to(dso.penalty.c_ls_per_kw2h, n)
    is_own_lambda, is_own_c_ls = rng.random((2, n)) < 0.5
    has_own = bool(np.all(own_c_ls > 0))

    def other_c_ls() -> Float[np.ndarray, " row"]:
        return own_c_ls * log_between(sampling.c_ls_scale) if has_own else log_between(sampling.c_ls_per_kw2h)

    questions = Questions(
        load_kw=rows(days.load_kw) * scale,
        load_kvar=rows(days.load_kvar) * scale * between(sampling.reactive_scale)[:, None],
        proposed_kw=sampling.proposal_scale * _proposals(params, interval, lmp, rng),
        lmp_per_kwh=lmp,
        lambda_corr_per_kw2h=np.where(is_own_lambda, 1.0, log_between(sampling.lambda_scale)) * own_lambda,
        c_ls_per_kw2h=np.where(is_own_c_ls, own_c_ls, other_c_ls()),
    )
    return np.tile(hours[chosen], shard.days), questions, np.where(pv_kw > 0, sun, np.nan)


def _proposals(
    params: Params, idle: Interval, lmp: Float[np.ndarray, " row"], rng: np.random.Generator
) -> Float[np.ndarray, "row trade"]:
    """What each microgrid proposes, each in one of the ways of `PROPOSALS`."""
    grids, shape, spread = params.microgrids, idle.pv_kw.shape, params.market.half_spread_per_kwh
    least_kw, most_kw = export_range(grids, idle)
    # The battery may not do more than the microgrid alone can use or feed, as in the market.
    rating_kw = grids.battery_rating_kw
    charge_kw, discharge_kw = np.maximum(-rating_kw, -most_kw), np.minimum(rating_kw, -least_kw)
    battery_kw = rng.uniform(charge_kw, np.maximum(discharge_kw, charge_kw))
    interval = replace(idle, battery_kw=battery_kw)
    near = lmp[:, None] + rng.uniform(-spread, spread, shape)
    wide = lmp[:, None] * rng.uniform(0.0, 4.0, shape)
    import_kw, export_kw = least_kw + charge_kw, most_kw + discharge_kw
    ways = (
        export_at(grids, interval, near, "right"),
        export_at(grids, interval, wide, "right"),
        rng.uniform(import_kw, export_kw),
        np.where(rng.random(shape) < 0.5, import_kw, export_kw),
        np.zeros(shape),
    )
    way = rng.choice(len(PROPOSALS), size=shape, p=list(PROPOSALS.values()))
    return np.choose(way, ways)
