"""One interval: physical laws, what actions mean, correction rounds, money, and promises that nobody keeps."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from peergrid.baselines.policies.fixed import NoTrade
from peergrid.envs.common.registered import MECHANISMS
from peergrid.envs.microgrid import export_at, export_range
from peergrid.envs.p2p_trading.scenario import build_dso, load_scenario
from peergrid.envs.p2p_trading.simulation import Simulation
from peergrid.envs.p2p_trading.transition import advance, current_interval, decode, encode, intervals_from
from peergrid.envs.p2p_trading.types import Outcome, Params
from peergrid.grid.dso import DsoQuery, DsoResponse, DsoStatus, OpfDso
from peergrid.grid.prices import PriceParts

every_mechanism = pytest.mark.parametrize("mechanism", MECHANISMS)


@dataclass
class StubDso:
    """Accepts this share of every proposal at the LMP, without any physics, and notes what it was asked."""

    share: float = 1.0
    status: DsoStatus = DsoStatus.OPTIMAL
    rows_unharmed: int = 0
    queries: list[DsoQuery] = field(default_factory=list)

    def __call__(self, query: DsoQuery) -> DsoResponse:
        self.queries.append(query)
        nothing, row = np.zeros_like(query.load_kw), np.zeros(len(query.load_kw))
        lmp = nothing + np.asarray(query.lmp_per_kwh)[:, None]
        share = np.full((len(query.load_kw), 1), self.share)
        share[: self.rows_unharmed] = 1.0
        return DsoResponse(
            accepted_kw=share * query.proposed_kw,
            shed_kw=nothing,
            generator_kw=np.zeros((len(row), 1)),
            generator_kvar=np.zeros((len(row), 1)),
            substation_kw=query.load_kw.sum(-1) - (share * query.proposed_kw).sum(-1),
            substation_kvar=row,
            voltage_pu=nothing + 1.0,
            flow_kw=nothing,
            flow_kvar=nothing,
            current_a=nothing,
            losses_kw=row,
            price_per_kwh=lmp,
            reactive_price_per_kvarh=nothing,
            price_parts=PriceParts(energy=lmp, loss=nothing, reactive=nothing, voltage=nothing, congestion=nothing),
            v_min_multiplier=nothing,
            v_max_multiplier=nothing,
            i_max_multiplier=nothing,
            i_max_lossless_multiplier=nothing,
            cost_per_hour=row,
            relaxation_gap_pu=row,
            status=np.full(len(row), int(self.status)),
            solve_seconds=0.0,
        )


@dataclass
class Noting:
    """A DSO whose queries and answers are noted."""

    dso: OpfDso
    asked: list[np.ndarray] = field(default_factory=list)
    accepted: list[np.ndarray] = field(default_factory=list)

    def __call__(self, query: DsoQuery) -> DsoResponse:
        response = self.dso(query)
        self.asked.append(query.proposed_kw)
        self.accepted.append(response.accepted_kw)
        return response


def simulation(scenario="ieee33", *, mechanism=None, dso=None, rounds=1, num_envs=1, **changes) -> Simulation:
    base = load_scenario(scenario, **changes)
    base = replace(base, market=replace(base.market, correction_rounds=rounds))
    return Simulation(base, mechanism=mechanism, dso=dso, num_envs=num_envs)


def somewhere(n, seed=0, **arguments):
    """A simulation with n rows in random intervals of random days, with random energy stored, and random actions."""
    sim, rng = simulation(num_envs=n, **arguments), np.random.default_rng(seed)
    sim.reset(seed=1000 * seed)
    state, days = sim.running()
    step, rows = rng.integers(0, sim.params.intervals, n), np.arange(n)
    least, most = days.least_kwh[rows, step], days.most_kwh[rows, step]
    sim.state = replace(state, interval=step, stored_kwh=rng.uniform(least, most))
    return sim, random_actions(n, sim.n_agent, rng)


def random_actions(n, n_agent, rng):
    """Half of the dispatch prices are near the LMP, where the market is; the others anywhere."""
    actions = rng.uniform(-1, 1, (n, n_agent, 4))
    actions[: n // 2, :, 3] = rng.uniform(-0.5, 0.1, (n // 2, n_agent))
    return actions


def outcome_of(sim, actions) -> Outcome:
    state, days = sim.running()
    return advance(state, actions, days, sim.params)[1]


def interval_of(sim, outcome):
    """The interval that was played, with the battery power that was decided."""
    now = current_interval(*sim.running(), sim.params)
    return now, replace(now.interval, battery_kw=outcome.decisions.battery_kw)


# Physical laws


@pytest.mark.parametrize("scenario", ["ieee33", "ieee33_communities", "ieee33_paper"])
def test_energy_balances_at_every_microgrid_and_on_the_feeder(scenario):
    sim, actions = somewhere(12, scenario=scenario)
    outcome = outcome_of(sim, actions)
    d, r = outcome.dispatch, outcome.response
    assert r.status.tolist() == [DsoStatus.OPTIMAL] * 12
    np.testing.assert_allclose(d.pv_kw + d.diesel_kw + d.battery_kw - d.load_kw, r.accepted_kw, rtol=0, atol=1e-9)
    now, interval = interval_of(sim, outcome)
    grids = sim.params.microgrids
    assert np.all((d.pv_kw >= 0) & (d.pv_kw <= interval.pv_kw) & (d.load_kw >= 0))
    assert np.all((d.diesel_kw >= 0) & (d.diesel_kw <= grids.diesel_max_kw))
    into = r.substation_kw + r.generator_kw.sum(-1) + r.accepted_kw.sum(-1) + r.shed_kw.sum(-1)
    np.testing.assert_allclose(into, now.load_kw.sum(-1) + r.losses_kw, rtol=1e-6)


@every_mechanism
def test_the_dso_curtails_and_never_enlarges_or_reverses(mechanism):
    outcome = outcome_of(*somewhere(12, scenario="ieee33_communities", mechanism=mechanism))
    proposed, accepted = outcome.proposed_kw, outcome.response.accepted_kw
    assert np.all((accepted >= np.minimum(proposed, 0)) & (accepted <= np.maximum(proposed, 0)))
    assert 0 < outcome.is_curtailed.sum() < outcome.is_curtailed.size
    rating = somewhere(1, scenario="ieee33_communities")[0].params.microgrids.rating_kw
    np.testing.assert_array_equal(outcome.is_curtailed, np.abs(proposed - accepted) > 0.01 * rating)


@every_mechanism
def test_a_proposal_is_the_contract_or_the_dispatch_that_pays_better_at_the_price_expected(mechanism):
    sim, actions = somewhere(200, mechanism=mechanism, dso=StubDso())
    outcome = outcome_of(sim, actions)
    _, interval = interval_of(sim, outcome)
    delta, price = sim.params.market.half_spread_per_kwh, outcome.decisions.dispatch_price_per_kwh
    grids, contract, proposed = sim.params.microgrids, outcome.contracts.quantity_kw, outcome.proposed_kw
    worth_selling = export_at(grids, interval, price - delta, "left")
    worth_buying = export_at(grids, interval, price + delta, "right")
    expected = np.where(
        contract < worth_selling, worth_selling, np.where(contract > worth_buying, worth_buying, contract)
    )
    np.testing.assert_allclose(proposed, expected, rtol=0, atol=1e-9)
    kept = np.isclose(proposed, contract) & (contract != 0)
    assert kept.any() and not kept.all()
    np.testing.assert_array_equal(outcome.response.accepted_kw, proposed)
    np.testing.assert_allclose(contract.sum(-1), 0, atol=1e-9)


@pytest.mark.parametrize(
    ("scenario", "habit"),
    [
        ("ieee33", "random"),
        ("ieee33_communities", "random"),
        ("ieee33_paper", "random"),
        ("ieee33", "always charging"),
        ("ieee33", "always discharging"),
        ("ieee33_paper", "to and fro"),
    ],
)
def test_batteries_keep_their_window_and_end_the_day_as_they_began(scenario, habit):
    n = 20
    sim, rng = simulation(scenario, num_envs=n, dso=StubDso(share=0.7)), np.random.default_rng(1)
    sim.reset(seed=5)
    grids = sim.params.microgrids
    for step in range(sim.params.intervals):
        actions = random_actions(n, sim.n_agent, rng)
        battery = {"random": actions[..., 0], "always charging": -1.0, "always discharging": 1.0}
        actions[..., 0] = battery.get(habit, (-1.0) ** step)
        before = sim.running()[0].stored_kwh
        _, outcome = sim.step(actions)
        charged, drained = np.maximum(-outcome.dispatch.battery_kw, 0), np.maximum(outcome.dispatch.battery_kw, 0)
        gained = (grids.charge_efficiency * charged - drained / grids.discharge_efficiency) * sim.params.step_hours
        np.testing.assert_allclose(outcome.stored_kwh - before, gained, rtol=0, atol=1e-9)
        assert np.all((outcome.stored_kwh >= grids.energy_min_kwh) & (outcome.stored_kwh <= grids.energy_max_kwh))
        assert np.all(np.abs(outcome.dispatch.battery_kw) <= grids.battery_rating_kw)
    np.testing.assert_allclose(outcome.stored_kwh, np.tile(sim.params.initial_kwh, (n, 1)), rtol=1e-12)


@pytest.mark.parametrize(
    "changes", [dict(step_hours=0.5, intervals=16), dict(initial_charge=0.0), dict(initial_charge=1.0)]
)
def test_the_daily_cycle_closes_at_other_steps_and_from_an_empty_or_full_battery(changes):
    sim, rng = simulation(num_envs=5, dso=StubDso(), **changes), np.random.default_rng(2)
    sim.reset(seed=0)
    for _ in range(sim.params.intervals):
        _, outcome = sim.step(random_actions(5, sim.n_agent, rng))
    np.testing.assert_allclose(outcome.stored_kwh, np.tile(sim.params.initial_kwh, (5, 1)), rtol=1e-12)


def test_without_a_daily_cycle_batteries_may_end_empty():
    sim = simulation(num_envs=2, dso=StubDso(), daily_cycle=False)
    sim.reset(seed=0)
    actions = np.zeros((2, sim.n_agent, 4))
    actions[..., 0] = 1.0
    for _ in range(sim.params.intervals):
        _, outcome = sim.step(actions)
    np.testing.assert_array_equal(outcome.stored_kwh, np.tile(sim.params.microgrids.energy_min_kwh, (2, 1)))


def test_rows_in_different_intervals_each_find_their_own():
    series = np.arange(3 * 10 * 2).reshape(3, 10, 2)
    for steps in ([4, 4, 4], [4, 0, 7]):
        each = [series[i, t] for i, t in enumerate(steps)]
        np.testing.assert_array_equal(series[intervals_from(np.array(steps))], each)
        ahead = [series[i, t + 1 : t + 3] for i, t in enumerate(steps)]
        np.testing.assert_array_equal(series[intervals_from(np.array(steps), 1, 3)], ahead)


# What actions mean

SIM, _ = somewhere(1, seed=3, dso=StubDso())
NOW = current_interval(*SIM.running(), SIM.params)


@settings(max_examples=100, deadline=None)
@given(arrays(float, (1, SIM.n_agent, 4), elements=st.floats(-1.5, 1.5)))
def test_encoding_is_the_inverse_of_decoding(actions):
    decisions, clipped = decode(actions, NOW, SIM.params)
    again, clipped_again = decode(encode(decisions, NOW, SIM.params), NOW, SIM.params)
    for name in ("battery_kw", "quantity_kw", "limit_price_per_kwh", "dispatch_price_per_kwh"):
        np.testing.assert_allclose(getattr(again, name), getattr(decisions, name), rtol=0, atol=1e-9, err_msg=name)
    # What was possible is not clipped again; an action that was possible comes back itself.
    np.testing.assert_allclose(clipped_again, 0, atol=1e-9)
    possible = (clipped == 0) & (np.abs(actions) <= 1).all(axis=-1)
    back, wanted = encode(decisions, NOW, SIM.params)[possible], actions[possible]
    np.testing.assert_allclose(back[..., :3], wanted[..., :3], rtol=0, atol=1e-9)
    # A dispatch price that would be beyond nothing or the cap comes back as what it is.
    price, cap = decisions.dispatch_price_per_kwh[possible], SIM.params.market.price_cap_per_kwh
    inside = (price > 0) & (price < cap)
    np.testing.assert_allclose(back[inside, 3], wanted[inside, 3], rtol=0, atol=1e-9)


def test_the_ends_of_every_action_are_what_the_action_space_says():
    low, _ = decode(-np.ones((1, 4, 4)), NOW, SIM.params)
    high, _ = decode(np.ones((1, 4, 4)), NOW, SIM.params)
    middle, _ = decode(np.zeros((1, 4, 4)), NOW, SIM.params)
    lmp, delta = NOW.lmp_per_kwh[0], SIM.params.market.half_spread_per_kwh
    np.testing.assert_allclose(low.limit_price_per_kwh, lmp - delta)
    np.testing.assert_allclose(high.limit_price_per_kwh, lmp + delta)
    published = SIM.running()[0].last_price_per_kwh
    for decisions, price in ((low, 0.0), (middle, published), (high, SIM.params.market.price_cap_per_kwh)):
        np.testing.assert_allclose(decisions.dispatch_price_per_kwh, np.broadcast_to(price, (1, 4)), atol=1e-12)
    np.testing.assert_array_equal(low.battery_kw, NOW.battery_least_kw)
    np.testing.assert_array_equal(high.battery_kw, NOW.battery_most_kw)
    least, _ = export_range(SIM.params.microgrids, replace(NOW.interval, battery_kw=low.battery_kw))
    _, most = export_range(SIM.params.microgrids, replace(NOW.interval, battery_kw=high.battery_kw))
    rating = SIM.params.microgrids.rating_kw
    np.testing.assert_allclose(low.quantity_kw, np.maximum(least, -rating))
    np.testing.assert_allclose(high.quantity_kw, np.minimum(most, rating))


def test_what_was_clipped_is_reported():
    sim = simulation(dso=StubDso())
    sim.reset(seed=0)
    sim.state = replace(sim.running()[0], stored_kwh=sim.params.microgrids.energy_min_kwh[None].copy())
    actions = np.zeros((1, 4, 4))
    actions[0, 0, 0] = 1.0  # discharges an empty battery of 20 kW
    actions[0, 1, 1] = 1.0  # sells its rating at midnight: 44 kW of diesel are all that there is
    _, outcome = sim.step(actions)
    rating = sim.params.microgrids.rating_kw[1]
    np.testing.assert_allclose(outcome.clipped_kw, [[20.0, rating - 44.0, 0.0, 0.0]], atol=1e-9)
    np.testing.assert_allclose(outcome.decisions.quantity_kw[0, 1], 44.0)


def test_numbers_beyond_the_action_space_count_as_its_ends():
    sim, actions = somewhere(3, dso=StubDso())
    beyond = outcome_of(sim, 3.0 * actions)
    ends = outcome_of(sim, np.clip(3.0 * actions, -1, 1))
    np.testing.assert_array_equal(beyond.reward, ends.reward)


# Correction rounds


@every_mechanism
def test_later_rounds_never_propose_beyond_what_was_accepted(mechanism):
    base = simulation("ieee33_communities").scenario
    dso = Noting(build_dso(base))
    sim, actions = somewhere(12, scenario="ieee33_communities", mechanism=mechanism, rounds=3, dso=dso)
    outcome = outcome_of(sim, actions)
    assert len(dso.asked) > 1
    slack = 0.01 * sim.params.microgrids.rating_kw
    for k in range(1, len(dso.asked)):
        before, accepted, asked = dso.asked[k - 1], dso.accepted[k - 1], dso.asked[k]
        curtailed = np.abs(before - accepted) > slack
        assert curtailed.any()
        bound = np.abs(accepted) + 1e-9
        assert np.all(np.where(curtailed & (accepted > 0), asked <= bound, True))
        assert np.all(np.where(curtailed & (accepted < 0), asked >= -bound, True))
    np.testing.assert_array_equal(outcome.first_proposed_kw, dso.asked[0])
    np.testing.assert_array_equal(outcome.first_accepted_kw, dso.accepted[0])
    single = outcome_of(*somewhere(12, scenario="ieee33_communities", mechanism=mechanism))
    untouched = ~single.is_curtailed.any(axis=-1)
    assert outcome.dso_calls[untouched].tolist() == [1] * untouched.sum()
    assert np.all(outcome.dso_calls[~untouched] > 1) and outcome.dso_calls.max() <= 3
    np.testing.assert_allclose(
        outcome.response.accepted_kw[untouched], single.response.accepted_kw[untouched], atol=1e-9
    )
    np.testing.assert_allclose(outcome.reward[untouched], single.reward[untouched], atol=1e-9)


def test_rows_without_curtailment_keep_their_first_answer_and_calls_are_counted():
    dso = StubDso(share=0.5, rows_unharmed=3)
    sim, actions = somewhere(6, dso=dso, rounds=4)
    outcome = outcome_of(sim, actions)
    assert outcome.dso_calls.tolist() == [1, 1, 1, 4, 4, 4] and len(dso.queries) == 4
    np.testing.assert_array_equal(outcome.proposed_kw[:3], dso.queries[0].proposed_kw[:3])
    np.testing.assert_array_equal(outcome.proposed_kw[3:], dso.queries[-1].proposed_kw[3:])
    np.testing.assert_array_equal(outcome.first_proposed_kw, dso.queries[0].proposed_kw)
    asked = np.abs(np.stack([q.proposed_kw[3:] for q in dso.queries]))
    # Half is accepted each time, and no more is proposed again where that is more than 1 % of the rating.
    assert np.all(np.diff(asked, axis=0) <= 0.01 * sim.params.microgrids.rating_kw)
    d = outcome.dispatch
    np.testing.assert_allclose(d.export_kw, outcome.response.accepted_kw, atol=1e-9)


def test_what_was_accepted_entirely_is_not_asked_again():
    dso = StubDso()
    outcome = outcome_of(*somewhere(4, dso=dso, rounds=5))
    assert outcome.dso_calls.tolist() == [1] * 4 and len(dso.queries) == 1


# A DSO without an answer


def test_an_answer_that_failed_is_a_status_and_no_trade():
    sim, actions = somewhere(3, dso=StubDso(share=0.0, status=DsoStatus.INFEASIBLE), rounds=3)
    outcome = outcome_of(sim, actions)
    assert outcome.response.status.tolist() == [DsoStatus.INFEASIBLE] * 3
    np.testing.assert_array_equal(outcome.response.accepted_kw, np.zeros((3, 4)))
    np.testing.assert_allclose(outcome.dispatch.export_kw, 0, atol=1e-9)
    assert np.isfinite(outcome.reward).all()


def test_a_network_that_no_dispatch_keeps_within_limits_is_a_status_and_no_trade():
    own = build_dso(load_scenario("ieee33"))
    strict = replace(own.feeder, v_min_pu=np.full(own.feeder.n_bus, 1.04))
    sim, actions = somewhere(
        2, dso=OpfDso(strict, own.trade_bus.tolist(), generators=own.generators, penalty=own.penalty)
    )
    outcome = outcome_of(sim, actions)
    assert outcome.response.status.tolist() == [DsoStatus.INFEASIBLE] * 2
    np.testing.assert_array_equal(outcome.response.accepted_kw, np.zeros((2, 4)))
    for money in (outcome.reward, outcome.welfare, outcome.dso_result):
        assert np.isfinite(money).all()


# Money


@every_mechanism
@pytest.mark.parametrize("scenario", ["ieee33_communities", "ieee33_paper"])
def test_every_payment_is_somebody_elses_and_welfare_is_what_is_left(mechanism, scenario):
    sim, actions = somewhere(12, seed=1, scenario=scenario, mechanism=mechanism, step_hours=0.5, intervals=48)
    outcome = outcome_of(sim, actions)
    spec, hours, now = sim.scenario, 0.5, current_interval(*sim.running(), sim.params)
    r, bill, gain = outcome.response, outcome.bills.total, outcome.reward
    cap, delta, lmp = spec.market.price_cap_per_kwh, spec.market.half_spread_per_kwh, now.lmp_per_kwh
    price = np.clip(r.price_per_kwh[:, sim.params.agent_bus], -cap, cap)
    deviation = np.abs(r.accepted_kw - outcome.contracts.quantity_kw)
    in_play = np.abs(bill).sum(-1) + (np.abs(price * r.accepted_kw) + delta * deviation).sum(-1) * hours
    in_play += np.abs(lmp * r.substation_kw) * hours + spec.market.retail_per_kwh * now.load_kw.sum(-1) * hours

    def assert_equal_sums(one, other):
        np.testing.assert_array_less(np.abs(one - other), 1e-9 * in_play)

    assert_equal_sums(bill.sum(-1), (delta * deviation - price * r.accepted_kw).sum(-1) * hours)

    generator, spot = spec.generators[0], sim.params.feeder.index(spec.generators[0].bus)
    g, g_price = r.generator_kw[:, 0], np.clip(r.price_per_kwh[:, spot], -cap, cap)
    retail = spec.market.retail_per_kwh * (now.load_kw - r.shed_kw).sum(-1)
    assert_equal_sums(outcome.dso_result, bill.sum(-1) + (retail - lmp * r.substation_kw - g_price * g) * hours)

    cost = generator.a_per_kw2h * g**2 + generator.b_per_kwh * g
    shed = spec.dso.voll_per_kwh * r.shed_kw.sum(-1) + spec.dso.c_ls_per_kw2h * (r.shed_kw**2).sum(-1)
    assert_equal_sums(outcome.welfare, gain.sum(-1) + bill.sum(-1) - (lmp * r.substation_kw + cost + shed) * hours)
    # The same, told by who gets it: microgrids, the DSO, its generator, and the consumers of the feeder.
    assert_equal_sums(outcome.welfare, gain.sum(-1) + outcome.dso_result + (g_price * g - cost - retail - shed) * hours)


def test_the_reward_is_utility_less_generation_wear_and_bill():
    sim, actions = somewhere(8, seed=2, step_hours=0.25, intervals=96)
    outcome = outcome_of(sim, actions)
    state, days = sim.running()
    d, spec = outcome.dispatch, sim.scenario.microgrids
    for row, agent in np.ndindex(outcome.reward.shape):
        m = spec[agent]
        demand = days.demand_kw[row, state.interval[row], agent]
        alpha = (m.utility_w_per_kwh - m.demand_price_per_kwh) / demand
        x = min(d.load_kw[row, agent], m.utility_w_per_kwh / alpha)
        g = d.diesel_kw[row, agent]
        rate = m.utility_w_per_kwh * x - alpha / 2 * x**2 - m.diesel_a_per_kw2h * g**2 - m.diesel_b_per_kwh * g
        rate -= m.wear_per_kwh * abs(d.battery_kw[row, agent])
        # The bill: the contract at its price, and at nodal prices what the network carries and what differs.
        c, pi = outcome.contracts.quantity_kw[row, agent], outcome.contracts.price_per_kwh[row, agent]
        prices = np.clip(outcome.response.price_per_kwh[row], -1, 1)
        nodal, upstream, q = (
            prices[sim.params.agent_bus[agent]],
            prices[0],
            outcome.response.accepted_kw[row, agent] - c,
        )
        bill = -pi * c + (upstream - nodal) * c - (nodal - 0.03) * max(q, 0) + (nodal + 0.03) * max(-q, 0)
        np.testing.assert_allclose(outcome.reward[row, agent], (rate - bill) * 0.25, rtol=1e-9, atol=1e-12)


def test_full_cooperation_pays_everybody_an_equal_share_of_welfare():
    sim, actions = somewhere(4, cooperation=1.0, dso=StubDso(share=0.5))
    outcome = outcome_of(sim, actions)
    np.testing.assert_allclose(outcome.reward, np.repeat(outcome.welfare[:, None] / 4, 4, axis=1))
    half = outcome_of(*somewhere(4, cooperation=0.5, dso=StubDso(share=0.5)))
    np.testing.assert_allclose(half.reward, 0.5 * half.gain + 0.5 * half.welfare[:, None] / 4)


def test_a_day_that_terminates_pays_for_the_energy_left():
    outcomes = {}
    for horizon in ("truncate", "terminate"):
        sim = simulation(num_envs=2, dso=StubDso(), horizon=horizon, daily_cycle=False, intervals=5)
        rng = np.random.default_rng(0)
        sim.reset(seed=0)
        outcomes[horizon] = [sim.step(random_actions(2, sim.n_agent, rng))[1] for _ in range(5)]
    for cut, finite in zip(outcomes["truncate"][:-1], outcomes["terminate"][:-1], strict=True):
        np.testing.assert_array_equal(cut.reward, finite.reward)
    last = outcomes["terminate"][-1]
    mean = sim.running()[1].lmp_day_ahead_per_kwh[:, :5].mean(axis=-1)[:, None]
    paid = last.reward - outcomes["truncate"][-1].reward
    np.testing.assert_allclose(paid, 0.95 * (last.stored_kwh - sim.params.initial_kwh) * mean, rtol=1e-9)
    assert np.abs(paid).min() > 0
    np.testing.assert_allclose(last.welfare - outcomes["truncate"][-1].welfare, paid.sum(-1), rtol=1e-9)


# Promises that nobody keeps
#
# A phantom is the part of a contract that is not delivered: sold beyond what is exported, or in the other direction.
# With injections, prices and the rest of the contract as they are, it costs between 0 and 2 delta per kWh. An offer may
# still pay for other reasons, which are measured apart:
#   share       a contract that is delivered, but larger, or at another price, than an honest offer would have got
#   physical    other injections or nodal prices, because others have other contracts


@dataclass(frozen=True, eq=False, kw_only=True)
class Phantoms:
    """What offers beyond delivery gained one microgrid in each row, over the better of two honest ones, by cause."""

    gain: np.ndarray
    empty: np.ndarray
    share: np.ndarray
    physical: np.ndarray
    undelivered_kw: np.ndarray


def phantoms(n, seed, **arguments) -> Phantoms:
    """Random offers of one microgrid, against offering exactly what it ended up delivering, and against none.

    Others' actions, its battery, limit price and dispatch price are the same in all three.
    """
    sim, actions = somewhere(n, seed, **arguments)
    rng, rows = np.random.default_rng(seed + 1), np.arange(n)
    who = rng.integers(0, sim.n_agent, n)
    actions[rows, who, 1] = rng.choice([-1.0, 1.0], n) * rng.uniform(0.2, 1.0, n)
    tried = outcome_of(sim, actions)
    exact, none = actions.copy(), actions.copy()
    exact[rows, who, 1] = tried.response.accepted_kw[rows, who] / sim.params.microgrids.rating_kw[who]
    none[rows, who, 1] = 0.0
    honest = [outcome_of(sim, exact), outcome_of(sim, none)]
    better = np.argmax([o.reward[rows, who] for o in honest], axis=0)

    mine, theirs = _account(tried, who, sim.params), [_account(o, who, sim.params) for o in honest]
    other = {key: np.where(better == 0, theirs[0][key], theirs[1][key]) for key in mine}
    injection = mine["injection"]
    backed = np.clip(mine["contract"], np.minimum(injection, 0), np.maximum(injection, 0))
    hours = sim.params.step_hours

    def bill(contract, price):
        """At the injection and prices of the phantom: (l_0 - pi) c - l a + delta |a - c|."""
        deviation = np.abs(injection - contract)
        spread = sim.params.market.half_spread_per_kwh
        return hours * ((mine["upstream"] - price) * contract - mine["nodal"] * injection + spread * deviation)

    np.testing.assert_allclose(bill(mine["contract"], mine["price"]), mine["bill"], rtol=0, atol=1e-9)
    gain = mine["reward"] - other["reward"]
    empty = bill(backed, mine["price"]) - mine["bill"]
    share = bill(other["contract"], other["price"]) - bill(backed, mine["price"])
    return Phantoms(
        gain=gain,
        empty=empty,
        share=share,
        physical=gain - empty - share,
        undelivered_kw=np.abs(mine["contract"] - backed),
    )


def _account(outcome: Outcome, who: np.ndarray, params: Params) -> dict[str, np.ndarray]:
    cap, price = params.market.price_cap_per_kwh, outcome.response.price_per_kwh
    by_agent = {
        "contract": outcome.contracts.quantity_kw,
        "price": outcome.contracts.price_per_kwh,
        "injection": outcome.response.accepted_kw,
        "nodal": np.clip(price[:, params.agent_bus], -cap, cap),
        "upstream": np.repeat(np.clip(price[:, :1], -cap, cap), len(params.agent_bus), axis=1),
        "bill": outcome.bills.total,
        "reward": outcome.reward,
    }
    return {key: values[np.arange(len(who)), who] for key, values in by_agent.items()}


def assert_nothing_is_gained_by_empty_promises(found: Phantoms):
    assert found.empty.max() <= 1e-9
    assert found.gain[found.undelivered_kw > 1e-3].max(initial=-np.inf) <= 1e-6


@every_mechanism
def test_a_promise_that_is_not_kept_does_not_pay(mechanism):
    assert_nothing_is_gained_by_empty_promises(phantoms(15, 0, mechanism=mechanism))


@pytest.mark.slow
@every_mechanism
@pytest.mark.parametrize("scenario", ["ieee33", "ieee33_communities"])
@pytest.mark.parametrize("rounds", [1, 3])
def test_no_random_promise_that_is_not_kept_pays(mechanism, scenario, rounds):
    found = phantoms(125, 7, mechanism=mechanism, scenario=scenario, rounds=rounds)
    assert_nothing_is_gained_by_empty_promises(found)


@every_mechanism
def test_asking_for_more_than_one_gets_wins_nothing(mechanism):
    sim = simulation(mechanism=mechanism, dso=StubDso())
    sim.reset(seed=0)
    actions = np.zeros((1, 4, 4))
    # At midnight: one buys 10 kW, three would export 30 kW each, at an expected price at which their diesel runs.
    actions[0, :, 1] = np.array([30.0, 30.0, -10.0, 30.0]) / sim.params.microgrids.rating_kw
    actions[0, :, 3] = np.array([0.3, 0.3, 0.0, 0.3])
    honest = outcome_of(sim, actions)
    actions[0, 0, 1] = 1.0
    greedy = outcome_of(sim, actions)
    assert (greedy.decisions.quantity_kw[0, 0] - honest.decisions.quantity_kw[0, 0]) > 1.0
    np.testing.assert_allclose(greedy.contracts.quantity_kw, honest.contracts.quantity_kw, atol=1e-9)
    np.testing.assert_allclose(greedy.reward, honest.reward, atol=1e-9)


@every_mechanism
def test_only_the_dso_can_leave_a_contract_undelivered(mechanism):
    # Offers end where the own dispatch price would have them end, so a network that accepts everything delivers them.
    sim = simulation(num_envs=20, mechanism=mechanism, dso=StubDso())
    sim.reset(seed=3)
    outcome = outcome_of(sim, np.random.default_rng(3).uniform(-1.0, 1.0, (20, sim.n_agent, 4)))
    contract, accepted = outcome.contracts.quantity_kw, outcome.response.accepted_kw
    assert (np.abs(contract) > 1.0).any()
    backed = np.clip(contract, np.minimum(accepted, 0.0), np.maximum(accepted, 0.0))
    np.testing.assert_allclose(contract, backed, atol=1e-9)


# Rewards counted from a day without trade


def test_rewards_over_no_trade_are_counted_from_the_same_day_without_trade():
    scenario = load_scenario("ieee33", intervals=3, cooperation=0.25)
    plain, counted = (
        Simulation(replace(scenario, over_no_trade=over), num_envs=2, predictor="none") for over in (False, True)
    )
    idle = Simulation(scenario, num_envs=2, predictor="none")
    for sim in (plain, counted, idle):
        sim.reset(seed=5)
    rng = np.random.default_rng(0)
    for _ in range(3):
        actions = random_actions(2, 4, rng)
        (_, there), (_, here) = plain.step(actions), counted.step(actions)
        _, nothing = idle.step(NoTrade().act_rows(idle, idle.seen))
        assert (here.gain == there.gain).all() and (here.welfare == there.welfare).all()
        own, common = here.gain - nothing.gain, here.welfare - nothing.welfare
        np.testing.assert_allclose(here.common_reward, common, atol=1e-4)
        np.testing.assert_allclose(here.reward, 0.75 * own + 0.25 * common[:, None] / 4, atol=1e-4)
        assert np.abs(here.reward - there.reward).max() > 1e-2
        np.testing.assert_array_equal(there.common_reward, there.welfare)


def test_nobody_who_does_not_trade_is_paid_over_no_trade():
    sim = Simulation(load_scenario("ieee33_communities", cooperation=0.5, over_no_trade=True), predictor="none")
    sim.reset(seed=1)
    while not sim.is_over.all():
        _, outcome = sim.step(NoTrade().act_rows(sim, sim.seen))
        np.testing.assert_allclose(outcome.reward, 0.0, atol=1e-3)
