"""What happens in an interval, told in order. Read `advance` first: it is the model.

Rows of the batch never touch each other. Energy prices are at the microgrids' own buses unless a name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Bool, Float, Int

from peergrid.envs.common.entries import bent, unbent
from peergrid.envs.common.signals import te_signal_per_kwh
from peergrid.envs.devices.device import level_after, power_limits, power_to_reach, running_cost
from peergrid.envs.microgrid import (
    Interval,
    battery_limits,
    decided_reach,
    diesel_cost,
    dispatch_to,
    export_band,
    export_range,
    store,
    utility,
    wear,
)
from peergrid.envs.p2p_trading.mechanisms import Contracts, Offers, clear
from peergrid.envs.p2p_trading.settlement import bills, dso_result, welfare
from peergrid.envs.p2p_trading.types import Days, Decisions, Now, Outcome, Params, Powers, State
from peergrid.grid.dso import DsoQuery, DsoResponse, is_curtailed

T = TypeVar("T")


def advance(
    state: State, actions: Float[np.ndarray, "batch agent number"], days: Days, params: Params, now: Now | None = None
) -> tuple[State, Outcome]:
    """One interval: offers are matched, the DSO allows what the network carries, batteries follow, all is settled.

    Args:
        now: What `current_interval` says, where it has been asked before.
    """
    now = now or current_interval(state, days, params)
    decisions, clipped_kw = decode(actions, now, params)
    now = with_fleets(now, decisions.fleet_kw, params)
    interval = replace(now.interval, battery_kw=decisions.battery_kw)

    agreed = _agree(decisions, interval, now, params)
    response, accepted = agreed.response, agreed.response.accepted_kw
    dispatch = dispatch_to(params.microgrids, interval, accepted)
    stored = store(
        params.microgrids, state.stored_kwh, decisions.battery_kw, now.least_kwh, now.most_kwh, params.step_hours
    )

    price = response.price_per_kwh.take(params.agent_bus, axis=-1)
    billed = bills(
        agreed.contracts,
        accepted,
        price,
        response.price_per_kwh[:, 0],
        half_spread_per_kwh=params.market.half_spread_per_kwh,
        cap_per_kwh=params.market.price_cap_per_kwh,
        step_hours=params.step_hours,
    )
    own_value = (
        utility(params.microgrids, interval, dispatch.load_kw)
        - diesel_cost(params.microgrids, dispatch.diesel_kw)
        - wear(params.microgrids, decisions.battery_kw)
    ) * params.step_hours
    levels, fleet_costs = _fleets_after(state, now, params)
    for cost in fleet_costs:
        own_value = own_value - cost
    paid = billed.total
    gain = own_value - paid
    result = _dso_result(response, paid, now, params)
    common = _welfare(response, gain, paid, now, params)
    gain, common = _with_stored_energy(gain, common, stored, state, days, params)
    rows, t = intervals_from(state.interval)
    own_reward, common_reward = gain - days.no_trade_gain[rows, t], common - days.no_trade_welfare[rows, t]
    share = common_reward[:, None] / gain.shape[-1]
    reward = (1.0 - params.cooperation) * own_reward + params.cooperation * share
    te_price = te_signal_per_kwh(params.feeder, response, now.lmp_per_kwh)

    outcome = Outcome(
        decisions=decisions,
        contracts=agreed.contracts,
        first_proposed_kw=agreed.first_proposed_kw,
        first_accepted_kw=agreed.first_accepted_kw,
        proposed_kw=agreed.proposed_kw,
        is_curtailed=is_curtailed(agreed.proposed_kw, accepted, params.microgrids.rating_kw),
        response=response,
        dispatch=dispatch,
        stored_kwh=stored,
        bills=billed,
        lmp_per_kwh=now.lmp_per_kwh,
        te_price_per_kwh=te_price.take(params.agent_bus, axis=-1),
        gain=gain,
        dso_result=result,
        welfare=common,
        reward=reward,
        common_reward=common_reward,
        dso_calls=agreed.dso_calls,
        clipped_kw=clipped_kw,
        levels=levels,
        fleet_costs=fleet_costs,
    )
    after = State(
        interval=state.interval + 1,
        stored_kwh=stored,
        last_lmp_per_kwh=now.lmp_per_kwh,
        last_price_per_kwh=price,
        last_te_price_per_kwh=outcome.te_price_per_kwh,
        last_proposed_kw=agreed.proposed_kw,
        last_accepted_kw=accepted,
        last_voltage_pu=response.voltage_pu,
        levels=levels,
    )
    return after, outcome


def current_interval(state: State, days: Days, params: Params) -> Now:
    """What the interval that begins brings: loads, price, sun, demand, and what each battery may do."""
    rows, t = intervals_from(state.interval)
    interval = Interval(
        pv_kw=days.pv_kw[rows, t],
        demand_kw=days.demand_kw[rows, t],
        alpha_per_kw2h=days.alpha_per_kw2h[rows, t],
        battery_kw=np.zeros(state.stored_kwh.shape),
    )
    # The day's last boundary bounds what is beyond it too: the final observation is of an interval nobody plays.
    end = t + (t < params.intervals)
    least_kwh, most_kwh = days.least_kwh[rows, end], days.most_kwh[rows, end]
    least_kw, most_kw = battery_limits(
        params.microgrids, interval, state.stored_kwh, least_kwh, most_kwh, params.step_hours
    )
    idle_least_kw, idle_most_kw = export_range(params.microgrids, interval)
    now = Now(
        load_kw=days.load_kw[rows, t],
        load_kvar=days.load_kvar[rows, t],
        lmp_per_kwh=days.lmp_per_kwh[rows, t],
        battery_least_kw=least_kw,
        battery_most_kw=most_kw,
        idle_least_kw=idle_least_kw,
        idle_most_kw=idle_most_kw,
        least_kwh=least_kwh,
        most_kwh=most_kwh,
        published_per_kwh=state.last_price_per_kwh.clip(0.0, params.market.price_cap_per_kwh),
        interval=interval,
        stored_kwh=state.stored_kwh,
    )
    return _with_own_fleets(now, state, days, params) if params.fleets else now


def with_fleets(now: Now, wished_kw: Powers, params: Params) -> Now:
    """What the interval brings if the fleets do what is wished, as far as they can: what is left for all else.

    In their order, each has what those before it leave of the power with which zero export stays feasible.
    """
    if not wished_kw:
        return now
    drawn_kw, given_kw = decided_reach(params.microgrids, replace(now.interval, others_kw=None))
    fleet_kw, total_kw = [], np.zeros_like(now.stored_kwh)
    for wish_kw, least_kw, most_kw in zip(wished_kw, now.fleet_least_kw, now.fleet_most_kw, strict=True):
        power_kw = wish_kw.clip(least_kw, most_kw).clip(-drawn_kw - total_kw, given_kw - total_kw)
        fleet_kw.append(power_kw)
        total_kw = total_kw + power_kw
    interval = replace(now.interval, others_kw=total_kw)
    battery_kw = battery_limits(
        params.microgrids, interval, now.stored_kwh, now.least_kwh, now.most_kwh, params.step_hours
    )
    idle_kw = export_range(params.microgrids, interval)
    return replace(
        now,
        interval=interval,
        fleet_kw=tuple(fleet_kw),
        battery_least_kw=battery_kw[0],
        battery_most_kw=battery_kw[1],
        idle_least_kw=idle_kw[0],
        idle_most_kw=idle_kw[1],
    )


def _with_own_fleets(now: Now, state: State, days: Days, params: Params) -> Now:
    """What the interval brings with fleets, which do what they do if nobody decides."""
    rows, t = intervals_from(state.interval)
    courses = tuple(course.over((rows, t)) for course in days.courses)
    limits = [power_limits(course, level) for course, level in zip(courses, state.levels, strict=True)]
    aims = tuple(power_to_reach(c, level, c.aim_level) for c, level in zip(courses, state.levels, strict=True))
    now = replace(
        now,
        courses=courses,
        fleet_least_kw=tuple(least_kw for least_kw, _ in limits),
        fleet_most_kw=tuple(most_kw for _, most_kw in limits),
    )
    return with_fleets(now, aims, params)


def _fleets_after(state: State, now: Now, params: Params) -> tuple[Powers, Powers]:
    """The fleets' levels at the interval's end, and what the interval cost them, in currency."""
    levels = tuple(
        level_after(course, level, power_kw)
        for course, level, power_kw in zip(now.courses, state.levels, now.fleet_kw, strict=True)
    )
    costs = tuple(
        running_cost(fleet, course, level, power_kw) * params.step_hours
        for fleet, course, level, power_kw in zip(params.fleets, now.courses, levels, now.fleet_kw, strict=True)
    )
    return levels, costs


def intervals_from(interval: Int[np.ndarray, " batch"], start: int = 0, stop: int | None = None) -> tuple[Any, Any]:
    """Index of each row's own interval in what is drawn for its day, or of those from `start` to `stop` after it.

    Where all rows are in the same interval these are slices, which copy nothing.
    """
    found = set(interval.tolist())
    if len(found) == 1:
        t = found.pop()
        return slice(None), t if stop is None else slice(t + start, t + stop)
    rows = np.arange(len(interval))
    return (rows, interval) if stop is None else (rows[:, None], interval[:, None] + np.arange(start, stop))


def decode(
    actions: Float[np.ndarray, "batch agent number"], now: Now, params: Params
) -> tuple[Decisions, Float[np.ndarray, "batch agent"]]:
    """What numbers in [-1, 1] mean: battery power, offered quantity, limit price, dispatch price, then fleets' powers.

    The dispatch price is counted from the one published last, in the bent scale in which prices are seen: 1 is as far
    as from nothing to the price cap. So steps are fine where prices usually are, and every price is in reach.

    Also the power in kW by which set-points and quantities were clipped to what is physically possible.
    """
    battery, quantity, limit, dispatch, *others = actions.clip(-1.0, 1.0).transpose(2, 0, 1)
    wished_fleet_kw = tuple(
        number * np.where(number < 0, fleet.draws_kw, fleet.gives_kw)
        for number, fleet in zip(others, params.fleets, strict=True)
    )
    now = with_fleets(now, wished_fleet_kw, params)
    wished_battery_kw = battery * params.microgrids.battery_rating_kw
    battery_kw = wished_battery_kw.clip(now.battery_least_kw, now.battery_most_kw)
    wished_kw = quantity * params.microgrids.rating_kw
    quantity_kw = wished_kw.clip(now.idle_least_kw + battery_kw, now.idle_most_kw + battery_kw)
    lmp, highest = now.lmp_per_kwh[:, None], bent(params.market.price_cap_per_kwh)
    price = unbent((bent(now.published_per_kwh) + highest * dispatch).clip(0.0, highest))
    decisions = Decisions(
        battery_kw=battery_kw,
        quantity_kw=quantity_kw,
        limit_price_per_kwh=lmp + limit * params.market.half_spread_per_kwh,
        dispatch_price_per_kwh=price.clip(0.0, params.market.price_cap_per_kwh),
        fleet_kw=now.fleet_kw,
    )
    clipped_kw = np.abs(wished_battery_kw - battery_kw) + np.abs(wished_kw - quantity_kw)
    for wish_kw, power_kw in zip(wished_fleet_kw, now.fleet_kw, strict=True):
        clipped_kw = clipped_kw + np.abs(wish_kw - power_kw)
    return decisions, clipped_kw


def encode(decisions: Decisions, now: Now, params: Params) -> Float[np.ndarray, "batch agent number"]:
    """The actions that mean these decisions, clipped to [-1, 1]: the inverse of `decode`."""
    lmp = now.lmp_per_kwh[:, None]
    above = bent(decisions.dispatch_price_per_kwh.clip(0.0)) - bent(now.published_per_kwh)
    half_spread = params.market.half_spread_per_kwh

    def share(part: Float[np.ndarray, "batch agent"], whole: Float[np.ndarray, "..."] | float) -> np.ndarray:
        return np.divide(part, whole, out=np.zeros_like(part), where=np.asarray(whole) > 0)

    numbers = [
        share(decisions.battery_kw, params.microgrids.battery_rating_kw),
        share(decisions.quantity_kw, params.microgrids.rating_kw),
        share(decisions.limit_price_per_kwh - lmp, half_spread),
        above / bent(params.market.price_cap_per_kwh),
        *(
            share(power_kw, np.where(power_kw < 0, fleet.draws_kw, fleet.gives_kw))
            for power_kw, fleet in zip(decisions.fleet_kw or now.fleet_kw, params.fleets, strict=True)
        ),
    ]
    return np.stack(numbers, axis=-1).clip(-1.0, 1.0)


def no_trade(state: State, now: Now) -> Decisions:
    """Nobody offers anything: exchange with the grid alone, at the nodal prices published last, with batteries idle."""
    nothing = np.zeros_like(state.stored_kwh)
    return Decisions(
        battery_kw=nothing,
        quantity_kw=nothing,
        limit_price_per_kwh=now.lmp_per_kwh[:, None] + nothing,
        dispatch_price_per_kwh=state.last_price_per_kwh,
    )


def counted_from_no_trade(state: State, days: Days, params: Params) -> Days:
    """The same days, with what each interval gives from this state on if nobody trades, from which rewards count."""
    gains, welfare = np.zeros_like(days.no_trade_gain), np.zeros_like(days.no_trade_welfare)
    days = replace(days, no_trade_gain=gains, no_trade_welfare=welfare)
    for t in range(params.intervals):
        now = current_interval(state, days, params)
        state, outcome = advance(state, encode(no_trade(state, now), now, params), days, params, now)
        gains[:, t], welfare[:, t] = outcome.gain, outcome.welfare
    return days


@dataclass(frozen=True, eq=False, kw_only=True)
class _Agreement:
    contracts: Contracts
    proposed_kw: Float[np.ndarray, "batch agent"]
    response: DsoResponse
    first_proposed_kw: Float[np.ndarray, "batch agent"]
    first_accepted_kw: Float[np.ndarray, "batch agent"]
    dso_calls: Int[np.ndarray, " batch"]


def _agree(decisions: Decisions, interval: Interval, now: Now, params: Params) -> _Agreement:
    """Clear the market, propose, hear the DSO; with more correction rounds, again within what it accepted.

    In a further round a curtailed microgrid offers and exports no more than it was allowed, so that its partners are
    matched anew with what can be delivered. Rows without curtailment keep their first answer.
    """
    microgrids, half_spread = params.microgrids, params.market.half_spread_per_kwh
    price = decisions.dispatch_price_per_kwh
    least_worth_kw, most_worth_kw = export_band(microgrids, interval, price - half_spread, price + half_spread)

    def propose(
        least_kw: np.ndarray, most_kw: np.ndarray, first_proposed_kw: np.ndarray | None
    ) -> tuple[Contracts, np.ndarray, DsoResponse]:
        # Nobody may promise what it would not deliver at its own dispatch price.
        least_offer_kw = np.minimum(np.maximum(least_kw, least_worth_kw), 0.0)
        most_offer_kw = np.maximum(np.minimum(most_kw, most_worth_kw), 0.0)
        offers = Offers(
            quantity_kw=decisions.quantity_kw.clip(least_offer_kw, most_offer_kw),
            limit_price_per_kwh=decisions.limit_price_per_kwh,
            lmp_per_kwh=now.lmp_per_kwh,
        )
        contracts = clear(params.mechanism, offers, half_spread)
        proposed_kw = contracts.quantity_kw.clip(least_worth_kw, most_worth_kw).clip(least_kw, most_kw)
        query = DsoQuery(
            load_kw=now.load_kw,
            load_kvar=now.load_kvar,
            proposed_kw=proposed_kw,
            lmp_per_kwh=now.lmp_per_kwh,
            first_proposed_kw=first_proposed_kw,
            root_price_per_kwh=now.lmp_per_kwh,
        )
        return contracts, proposed_kw, params.dso(query)

    least_kw, most_kw = now.idle_least_kw + decisions.battery_kw, now.idle_most_kw + decisions.battery_kw
    contracts, proposed_kw, response = propose(least_kw, most_kw, None)
    first_proposed_kw, first_accepted_kw = proposed_kw, response.accepted_kw
    calls = np.ones(len(now.lmp_per_kwh), dtype=int)
    is_open = np.ones(len(calls), dtype=bool)
    for _ in range(params.market.correction_rounds - 1):
        curtailed = is_curtailed(proposed_kw, response.accepted_kw, params.microgrids.rating_kw)
        is_open = is_open & curtailed.any(axis=-1)
        if not is_open.any():
            break
        allowed_kw = response.accepted_kw
        least_kw = np.where(curtailed & (proposed_kw < 0), np.maximum(allowed_kw, least_kw), least_kw)
        most_kw = np.where(curtailed & (proposed_kw > 0), np.minimum(allowed_kw, most_kw), most_kw)
        again = propose(least_kw, most_kw, first_proposed_kw)
        contracts, response = _choose(is_open, again[0], contracts), _choose(is_open, again[2], response)
        proposed_kw = np.where(is_open[:, None], again[1], proposed_kw)
        calls = calls + is_open
    return _Agreement(
        contracts=contracts,
        proposed_kw=proposed_kw,
        response=response,
        first_proposed_kw=first_proposed_kw,
        first_accepted_kw=first_accepted_kw,
        dso_calls=calls,
    )


def _choose(rows: Bool[np.ndarray, " batch"], there: T, elsewhere: T) -> T:
    """Arrays of one dataclass in the marked rows, of another of the same kind elsewhere."""
    values = {}
    for name in there.__dataclass_fields__:  # type: ignore[attr-defined]
        a, b = getattr(there, name), getattr(elsewhere, name)
        if a is None:
            continue  # an optional field that was not filled in
        if isinstance(a, np.ndarray):
            values[name] = np.where(rows.reshape(-1, *[1] * (a.ndim - 1)), a, b)
        else:
            values[name] = _choose(rows, a, b) if hasattr(a, "__dataclass_fields__") else a + b
    return type(there)(**values)


def _dso_result(
    response: DsoResponse, billed: Float[np.ndarray, "batch agent"], now: Now, params: Params
) -> Float[np.ndarray, " batch"]:
    at_generators = response.price_per_kwh[:, list(params.generators.bus)]
    return dso_result(
        billed,
        now.load_kw - response.shed_kw,
        now.lmp_per_kwh,
        response.substation_kw,
        at_generators,
        response.generator_kw,
        retail_per_kwh=params.market.retail_per_kwh,
        cap_per_kwh=params.market.price_cap_per_kwh,
        step_hours=params.step_hours,
    )


def _welfare(
    response: DsoResponse,
    gain: Float[np.ndarray, "batch agent"],
    billed: Float[np.ndarray, "batch agent"],
    now: Now,
    params: Params,
) -> Float[np.ndarray, " batch"]:
    return welfare(
        gain,
        billed,
        now.lmp_per_kwh,
        response.substation_kw,
        params.generators.cost_per_hour(response.generator_kw),
        response.shed_kw,
        voll_per_kwh=params.voll_per_kwh,
        shed_per_kw2h=params.c_ls_per_kw2h,
        step_hours=params.step_hours,
    )


def _with_stored_energy(
    gain: Float[np.ndarray, "batch agent"],
    common: Float[np.ndarray, " batch"],
    stored_kwh: Float[np.ndarray, "batch agent"],
    state: State,
    days: Days,
    params: Params,
) -> tuple[Float[np.ndarray, "batch agent"], Float[np.ndarray, " batch"]]:
    """A day that terminates pays the energy left above the initial at the day's mean price, less discharge losses."""
    if not params.terminates:
        return gain, common
    is_last = state.interval + 1 >= params.intervals
    mean_price = days.lmp_day_ahead_per_kwh[:, : params.intervals].mean(axis=-1)
    left_kwh = (stored_kwh - params.initial_kwh) * params.microgrids.discharge_efficiency
    value = np.where(is_last[:, None], left_kwh * mean_price[:, None], 0.0)
    return gain + value, common + value.sum(axis=-1)
