"""What happens in a TE iteration, told in order. Read `advance` first: it is the model.

Rows of the batch never touch each other.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from peergrid.envs.common.signals import te_signal_per_kwh
from peergrid.envs.devices.demand import shift_limits
from peergrid.envs.transactive.resources import SetPoints, carried, operating_cost, storage_range, store
from peergrid.envs.transactive.settlement import Bills, bills, spread_cost, upstream_cost
from peergrid.envs.transactive.signal import SignalBase, Standing
from peergrid.envs.transactive.types import Closing, Days, Limits, Now, Outcome, Params, State
from peergrid.grid.dso import DsoQuery, DsoResponse


def advance(
    state: State,
    chosen: SetPoints,
    days: Days,
    params: Params,
    next_root_per_kwh: Float[np.ndarray, " batch"] | None = None,
    now: Now | None = None,
) -> tuple[State, Outcome]:
    """One TE iteration: agents answer the signal, power flows, the DSO closes the hour or moves the signal.

    Args:
        chosen: What the agents answer; what is physically impossible is clipped.
        next_root_per_kwh: Where the DSO moves the root signal if the hour goes on; by its rule if None.
        now: What `current_interval` says, where it has been asked before.
    """
    now = now or current_interval(state, days, params)
    asked = clip(chosen, now.limits, params)
    response = params.dso(
        DsoQuery(
            load_kw=now.load_kw,
            load_kvar=now.load_kvar,
            proposed_kw=asked.total_kw + now.pv_kw,
            lmp_per_kwh=now.lmp_per_kwh,
            root_price_per_kwh=state.root_per_kwh,
        )
    )
    done, pv_kw = carried(asked, now.pv_kw, response.accepted_kw)
    own_load_kw = params.own_of(now.load_kw)
    gap_kw = response.substation_kw - now.scheduled_kw
    signal = te_signal_per_kwh(params.feeder, response, state.root_per_kwh)

    root, step_share = _moved(state, now, gap_kw, params)
    if next_root_per_kwh is not None:
        root, step_share = _bounded(next_root_per_kwh, now, params), state.step_share
    closing = _closing(state, now, gap_kw, root, next_root_per_kwh is None, params)
    is_closed = closing != Closing.OPEN

    stored = store(params.resources, state.stored_kwh, done.storage_kw, params.step_hours)
    shifted = state.shifted_kwh + params.step_hours * done.shift_kw
    outcome = _settled(
        Outcome(
            interval=state.interval,
            iteration=state.iteration,
            root_per_kwh=state.root_per_kwh,
            base_per_kwh=now.base_per_kwh,
            lmp_per_kwh=now.lmp_per_kwh,
            set_points=done,
            asked_kw=asked.total_kw + now.pv_kw,
            exchange_kw=response.accepted_kw - own_load_kw,
            scheduled_exchange_kw=days.day_ahead.exchange_kw[np.arange(len(gap_kw)), state.interval],
            pv_kw=pv_kw,
            load_kw=own_load_kw,
            response=response,
            import_kw=response.substation_kw,
            scheduled_kw=now.scheduled_kw,
            gap_kw=gap_kw,
            signal_per_kwh=signal,
            closing=closing,
            stored_kwh=np.where(is_closed[:, None], stored, state.stored_kwh),
            shifted_kwh=np.where(is_closed[:, None], shifted, state.shifted_kwh),
            clipped_kw=_distance(chosen, asked),
            **_no_money(response),
        ),
        days,
        params,
    )
    return _next(state, outcome, root, step_share, days, params), outcome


def current_interval(state: State, days: Days, params: Params) -> Now:
    """What the open hour brings, and what each resource may do in it."""
    t = np.minimum(state.interval, params.intervals - 1)
    rows = np.arange(len(t))
    end = state.interval + (state.interval < params.intervals)
    h = params.step_hours
    storage = storage_range(
        params.resources, state.stored_kwh, days.stored_least_kwh[rows, end], days.stored_most_kwh[rows, end], h
    )
    shift = shift_limits(days.shift_most_kw[rows, t], days.shifted_most_kwh[rows, end], state.shifted_kwh, h)
    return Now(
        load_kw=days.load_kw[rows, t],
        load_kvar=days.load_kvar[rows, t],
        pv_kw=days.pv_kw[rows, t],
        lmp_per_kwh=days.lmp_per_kwh[rows, t],
        base_per_kwh=base_per_kwh(days, params)[rows, t],
        scheduled_kw=days.day_ahead.import_kw[rows, t],
        limits=Limits(
            shift_least_kw=shift[0],
            shift_most_kw=shift[1],
            storage_least_kw=storage[0],
            storage_most_kw=storage[1],
        ),
    )


def base_per_kwh(days: Days, params: Params) -> Float[np.ndarray, "batch interval"]:
    """The price from which each hour's root signal starts, and of which its steps and bounds are shares."""
    is_ahead = params.loop.signal_base is SignalBase.DAY_AHEAD
    return days.forecast.lmp_per_kwh if is_ahead else days.lmp_per_kwh


def clip(chosen: SetPoints, limits: Limits, params: Params) -> SetPoints:
    """Set-points as far as they are physically possible."""
    return SetPoints(
        shift_kw=np.clip(chosen.shift_kw, limits.shift_least_kw, limits.shift_most_kw),
        generator_kw=np.clip(chosen.generator_kw, 0.0, params.resources.generator_max_kw),
        storage_kw=np.clip(chosen.storage_kw, limits.storage_least_kw, limits.storage_most_kw),
    )


def decode(actions: Float[np.ndarray, "batch agent 3"], params: Params) -> SetPoints:
    """The set-points that actions in [-1, 1] ask for.

    Shifting and storage are shares of what each could do either way, 0 being nothing; -1 is no generation, 1 the most.
    """
    most_shift = params.resources.shiftable_share * params.resources.peak_kw
    return SetPoints(
        shift_kw=actions[..., 0] * most_shift,
        generator_kw=0.5 * (actions[..., 1] + 1.0) * params.resources.generator_max_kw,
        storage_kw=actions[..., 2] * params.resources.storage_max_kw,
    )


def encode(chosen: SetPoints, params: Params) -> Float[np.ndarray, "*batch agent 3"]:
    """The actions that ask for set-points; that of a resource which an agent does not have is 0."""
    r = params.resources

    def share(power: np.ndarray, most: np.ndarray) -> np.ndarray:
        return np.divide(power, most, out=np.zeros(np.broadcast(power, most).shape), where=most > 0)

    generating = np.where(r.generator_max_kw > 0, 2.0 * share(chosen.generator_kw, r.generator_max_kw) - 1.0, 0.0)
    actions = [
        share(chosen.shift_kw, r.shiftable_share * r.peak_kw),
        generating,
        share(chosen.storage_kw, r.storage_max_kw),
    ]
    return np.clip(np.stack(actions, axis=-1), -1.0, 1.0)


def root_of_action(
    action: Float[np.ndarray, " batch"], state: State, days: Days, params: Params
) -> Float[np.ndarray, " batch"]:
    """The root signal that a DSO's action in [-1, 1] asks for: 0 is its base, either end its bound."""
    base = base_per_kwh(days, params)[np.arange(len(action)), np.minimum(state.interval, params.intervals - 1)]
    return base * (1.0 + params.loop.bound_share * action)


def with_root(state: State, root_per_kwh: Float[np.ndarray, " batch"]) -> State:
    """The state with another root signal, and the signals of all buses moved in proportion."""
    factor = (root_per_kwh / state.root_per_kwh)[:, None]
    return replace(state, root_per_kwh=root_per_kwh, signal_per_kwh=state.signal_per_kwh * factor)


def _bounded(root: Float[np.ndarray, " batch"], now: Now, params: Params) -> Float[np.ndarray, " batch"]:
    bound, base = params.loop.bound_share, now.base_per_kwh
    return np.clip(root, (1.0 - bound) * base, (1.0 + bound) * base)


def _moved(
    state: State, now: Now, gap_kw: Float[np.ndarray, " batch"], params: Params
) -> tuple[Float[np.ndarray, " batch"], Float[np.ndarray, " batch"]]:
    """Where the rule moves the root signal, and its next step."""
    scheduled = np.maximum(np.abs(now.scheduled_kw), 1e-9)
    root, step_share = params.loop.rule(
        Standing(
            root_per_kwh=state.root_per_kwh,
            base_per_kwh=now.base_per_kwh,
            gap_share=gap_kw / scheduled,
            last_gap_share=state.gap_kw / scheduled,
            step_share=state.step_share,
            gain=params.loop.gain,
        )
    )
    return _bounded(root, now, params), step_share


def _closing(
    state: State,
    now: Now,
    gap_kw: Float[np.ndarray, " batch"],
    next_root: Float[np.ndarray, " batch"],
    by_rule: bool,
    params: Params,
) -> Int[np.ndarray, " batch"]:
    """Why the hour closes, or that it does not.

    A rule that leaves the signal where it is would have the same answer again. Whoever else moves it has chosen before
    hearing the answer: then the hour closes where the signal is what it was in the iteration before, or is at the
    bound that the gap asks for.
    """
    loop, base = params.loop, now.base_per_kwh
    if by_rule:
        stands = next_root == state.root_per_kwh
    else:
        wanted = np.where(gap_kw > 0, 1.0, -1.0) * loop.bound_share
        at_bound = np.abs(state.root_per_kwh - (1.0 + wanted) * base) <= 1e-9 * base
        stands = at_bound | (np.abs(state.root_per_kwh - state.last_root_per_kwh) <= 1e-9 * base)
    within = np.abs(gap_kw) <= loop.threshold_share * np.abs(now.scheduled_kw)
    closing = np.where(state.iteration + 1 >= loop.max_iterations, Closing.OUT_OF_ITERATIONS, Closing.OPEN)
    closing = np.where(stands, Closing.SIGNAL_STANDS, closing)
    return np.where(within, Closing.WITHIN_THRESHOLD, closing).astype(int)


def _distance(chosen: SetPoints, done: SetPoints) -> Float[np.ndarray, "batch agent"]:
    parts = ("shift_kw", "generator_kw", "storage_kw")
    distance: Float[np.ndarray, "batch agent"] = sum(
        (np.abs(getattr(chosen, name) - getattr(done, name)) for name in parts), start=np.zeros_like(done.shift_kw)
    )
    return distance


def _no_money(response: DsoResponse) -> dict[str, Any]:
    of_agents, of_rows = np.zeros(response.accepted_kw.shape), np.zeros(len(response.substation_kw))
    return {
        "bills": Bills(day_ahead=of_agents, real_time=of_agents),
        "operating_cost": of_agents,
        "reward": of_agents,
        "upstream_cost": of_rows,
        "total_cost": of_rows,
        "dso_result": of_rows,
        "dso_reward": of_rows,
    }


def _settled(outcome: Outcome, days: Days, params: Params) -> Outcome:
    """The outcome with its money: of closed hours all of it, of the others only what the gap costs the DSO's mark."""
    h, agents, lmp = params.step_hours, params.agent_bus, outcome.lmp_per_kwh
    rows, t, is_closed = np.arange(len(lmp)), outcome.interval, outcome.is_closed
    expected, agreed = days.forecast, days.day_ahead

    # What was to be injected and is: agents exchange, and what of a bus's load is nobody's is billed like an agent.
    ahead, signal, shed_kw = agreed.signal_per_kwh[rows, t], outcome.signal_per_kwh, outcome.response.shed_kw
    delivered_kw = outcome.exchange_kw + params.own_of(shed_kw)
    own = bills(outcome.scheduled_exchange_kw, delivered_kw, ahead[:, agents], signal[:, agents], h)
    share = 1.0 - np.bincount(agents, params.load_share, params.feeder.n_bus)
    others = bills(-share * expected.load_kw[rows, t], share * (shed_kw - days.load_kw[rows, t]), ahead, signal, h)
    cost = operating_cost(params.resources, outcome.set_points) * h
    upstream = upstream_cost(
        outcome.scheduled_kw, outcome.gap_kw, expected.lmp_per_kwh[rows, t], lmp, params.imbalance_spread, h
    )
    shed_cost = params.voll_per_kwh * shed_kw.sum(axis=-1) * h

    def if_closed(values: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        return np.where(is_closed.reshape(-1, *[1] * (values.ndim - 1)), values, 0.0)

    return replace(
        outcome,
        bills=Bills(day_ahead=if_closed(own.day_ahead), real_time=if_closed(own.real_time)),
        operating_cost=if_closed(cost),
        upstream_cost=if_closed(upstream),
        total_cost=if_closed(upstream + cost.sum(axis=-1) + shed_cost),
        dso_result=if_closed(own.total.sum(axis=-1) + others.total.sum(axis=-1) - upstream),
        reward=if_closed(-own.total - cost),
        dso_reward=-spread_cost(outcome.gap_kw, lmp, params.imbalance_spread) * h,
    )


def _next(
    state: State,
    outcome: Outcome,
    root: Float[np.ndarray, " batch"],
    step_share: Float[np.ndarray, " batch"],
    days: Days,
    params: Params,
) -> State:
    is_closed = outcome.is_closed
    opening = opened(state.interval + 1, days, params)

    def choose(closed: np.ndarray, open_: np.ndarray) -> np.ndarray:
        return np.where(is_closed.reshape(-1, *[1] * (np.ndim(open_) - 1)), closed, open_)

    moved = outcome.signal_per_kwh * (root / outcome.root_per_kwh)[:, None]
    return State(
        interval=state.interval + is_closed,
        iteration=choose(np.zeros_like(state.iteration), state.iteration + 1),
        steps=state.steps + 1,
        stored_kwh=outcome.stored_kwh,
        shifted_kwh=outcome.shifted_kwh,
        root_per_kwh=choose(opening[0], root),
        signal_per_kwh=choose(opening[1], moved),
        last_root_per_kwh=choose(np.full_like(root, np.nan), outcome.root_per_kwh),
        step_share=choose(np.full_like(root, params.loop.step_share), step_share),
        gap_kw=choose(np.zeros_like(root), outcome.gap_kw),
        last_flexible_kw=outcome.response.accepted_kw,
        last_gap_kw=choose(outcome.gap_kw, state.last_gap_kw),
        last_voltage_pu=outcome.response.voltage_pu,
    )


def opened(
    interval: Int[np.ndarray, " batch"], days: Days, params: Params
) -> tuple[Float[np.ndarray, " batch"], Float[np.ndarray, "batch bus"]]:
    """The signals with which an hour opens: its base at the substation, elsewhere in the proportions of the schedule.

    Where the day is over they are those of its last hour.
    """
    rows, t = np.arange(len(interval)), np.minimum(interval, params.intervals - 1)
    root, ahead = base_per_kwh(days, params)[rows, t], days.day_ahead.signal_per_kwh[rows, t]
    return root, root[:, None] * ahead / ahead[:, :1]


def is_over(state: State, params: Params, max_cycles: int | None) -> Bool[np.ndarray, " batch"]:
    """The rows whose day has ended, or which have had the most steps."""
    over: Bool[np.ndarray, " batch"] = state.interval >= params.intervals
    return over if max_cycles is None else over | (state.steps >= max_cycles)
