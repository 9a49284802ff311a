from dataclasses import dataclass, replace

import numpy as np
import pytest

from peergrid.envs.p2p_trading.mechanisms import Contracts, Offers, bilateral, call_auction, direct, mid_market_rate
from peergrid.envs.p2p_trading.settlement import bills, dso_result, welfare

DELTA, CAP, RETAIL, VOLL, C_LS, HOURS = 0.03, 1.0, 0.15, 3.0, 0.2, 0.5
RULES = dict(half_spread_per_kwh=DELTA, cap_per_kwh=CAP, step_hours=HOURS)


@dataclass(frozen=True, eq=False, kw_only=True)
class Steps:
    contracts: Contracts
    accepted_kw: np.ndarray
    price: np.ndarray
    lmp: np.ndarray
    substation_price: np.ndarray

    def bills(self):
        return bills(self.contracts, self.accepted_kw, self.price, self.substation_price, **RULES)


def random_steps(mechanism=bilateral, seed=0, n=1000, agents=4):
    """Contracts within LMP +- delta; nodal prices anywhere, also beyond the cap; what is accepted is independent."""
    rng = np.random.default_rng(seed)
    lmp = rng.uniform(0.04, 0.3, n)
    limit = lmp[:, None] + rng.uniform(-DELTA, DELTA, (n, agents))
    contracts = mechanism(
        Offers(quantity_kw=rng.normal(0, 40, (n, agents)), limit_price_per_kwh=limit, lmp_per_kwh=lmp)
    )
    price = np.where(rng.random((n, agents)) < 0.2, rng.normal(0, 4, (n, agents)), rng.uniform(0, 0.4, (n, agents)))
    accepted = contracts.quantity_kw + rng.normal(0, 20, (n, agents)) * (rng.random((n, agents)) < 0.8)
    return Steps(contracts=contracts, accepted_kw=accepted, price=price, lmp=lmp, substation_price=lmp)


def assert_equal_sums(actual, expected, terms):
    """Equal to 1e-9 of the terms summed up: a sum that happens to be small is not to be blamed."""
    np.testing.assert_array_less(np.abs(actual - expected), 1e-9 * np.abs(terms))


def test_bills_match_the_hand_calculation():
    # 10 kW sold at .11, 8 delivered at a bus where energy is worth .20; 10 bought, 13 drawn where it is worth .08.
    contracts = Contracts(quantity_kw=np.array([[10.0, -10.0]]), price_per_kwh=np.array([[0.11, 0.11]]))
    b = bills(contracts, np.array([[8.0, -13.0]]), np.array([[0.20, 0.08]]), np.array([0.10]), **RULES)
    np.testing.assert_allclose(b.contract, [[-1.1 / 2, 1.1 / 2]])
    np.testing.assert_allclose(b.network_charge, [[-1.0 / 2, -0.2 / 2]])
    np.testing.assert_allclose(b.deviation, [[2 * 0.23 / 2, 3 * 0.11 / 2]])
    np.testing.assert_allclose(b.total, b.contract + b.network_charge + b.deviation)


def test_surplus_earns_the_nodal_price_less_the_spread():
    contracts = Contracts(quantity_kw=np.zeros((1, 1)), price_per_kwh=np.full((1, 1), 0.1))
    b = bills(contracts, np.array([[4.0]]), np.array([[0.2]]), np.array([0.1]), **RULES)
    np.testing.assert_allclose(b.total, [[-4 * 0.17 / 2]])
    b = bills(contracts, np.array([[4.0]]), np.array([[7.0]]), np.array([0.1]), **RULES)
    np.testing.assert_allclose(b.total, [[-4 * 0.97 / 2]])


@pytest.mark.parametrize("mechanism", [bilateral, call_auction, mid_market_rate, direct])
def test_bills_sum_to_the_nodal_value_of_what_is_drawn_and_the_spread(mechanism):
    steps = random_steps(mechanism)
    nodal = np.clip(steps.price, -CAP, CAP) * steps.accepted_kw
    spread = DELTA * np.abs(steps.accepted_kw - steps.contracts.quantity_kw)
    b = steps.bills()
    terms = (np.abs(b.contract) + np.abs(b.network_charge) + np.abs(b.deviation)).sum(axis=-1)
    assert_equal_sums(b.total.sum(axis=-1), (spread - nodal).sum(axis=-1) * HOURS, terms)


@pytest.mark.parametrize("substation_price", [-0.4, 0.9, 5.0])
def test_the_substation_price_moves_money_between_microgrids_only(substation_price):
    steps = random_steps()
    b = steps.bills()
    moved = replace(steps, substation_price=np.full(1000, substation_price)).bills()
    terms = (np.abs(moved.network_charge) + np.abs(b.network_charge) + np.abs(b.deviation)).sum(axis=-1)
    assert_equal_sums(moved.total.sum(axis=-1), b.total.sum(axis=-1), terms)


def random_network(seed=1, n=1000):
    rng = np.random.default_rng(seed)
    load = rng.uniform(0, 200, (n, 33))
    shed = np.where(rng.random((n, 33)) < 0.05, rng.uniform(0, 1, (n, 33)) * load, 0.0)
    return dict(load=load, shed=shed, g0=rng.uniform(-500, 4000, n), g=rng.uniform(0, 1500, (n, 1)))


def cost_per_hour(g):
    return 5e-5 * g**2 + 0.12 * g


def test_every_currency_unit_that_somebody_pays_somebody_else_gets():
    """Welfare is what microgrids, DSO, generator and consumers of the feeder have together."""
    steps, net = random_steps(), random_network()
    rng = np.random.default_rng(2)
    own_value = rng.uniform(0, 20, (1000, 4))
    generator_price = rng.normal(0.12, 1.0, (1000, 1))
    bill = steps.bills().total
    gain = own_value - bill
    cost = cost_per_hour(net["g"])
    w = welfare(
        gain, bill, steps.lmp, net["g0"], cost, net["shed"], voll_per_kwh=VOLL, shed_per_kw2h=C_LS, step_hours=HOURS
    )
    outlay = steps.lmp * net["g0"] + cost.sum(-1) + VOLL * net["shed"].sum(-1) + C_LS * (net["shed"] ** 2).sum(-1)
    terms = np.abs(bill).sum(-1) + own_value.sum(-1) + np.abs(outlay) * HOURS + 1
    assert_equal_sums(w, own_value.sum(-1) - outlay * HOURS, terms)

    served = net["load"] - net["shed"]
    dso = dso_result(
        bill,
        served,
        steps.lmp,
        net["g0"],
        generator_price,
        net["g"],
        retail_per_kwh=RETAIL,
        cap_per_kwh=CAP,
        step_hours=HOURS,
    )
    paid = np.clip(generator_price, -CAP, CAP) * net["g"]
    generator = (paid - cost).sum(-1) * HOURS
    consumers = -(RETAIL * served + VOLL * net["shed"] + C_LS * net["shed"] ** 2).sum(-1) * HOURS
    assert_equal_sums(gain.sum(-1) + dso + generator + consumers, w, terms + np.abs(consumers) + np.abs(generator))


def test_the_result_of_the_dso_is_the_sum_of_its_parts():
    steps, net = random_steps(), random_network()
    served, price = net["load"] - net["shed"], np.full((1000, 1), 0.13)
    dso = dso_result(
        steps.bills().total,
        served,
        steps.lmp,
        net["g0"],
        price,
        net["g"],
        retail_per_kwh=RETAIL,
        cap_per_kwh=CAP,
        step_hours=HOURS,
    )
    nodal = np.clip(steps.price, -CAP, CAP) * steps.accepted_kw
    spread = DELTA * np.abs(steps.accepted_kw - steps.contracts.quantity_kw)
    sold = RETAIL * served.sum(-1) - steps.lmp * net["g0"] - 0.13 * net["g"][:, 0]
    terms = np.abs(nodal).sum(-1) + spread.sum(-1) + RETAIL * served.sum(-1) + np.abs(steps.lmp * net["g0"])
    assert_equal_sums(dso, ((spread - nodal).sum(-1) + sold) * HOURS, terms)


def cost_of_an_empty_promise(steps, delta_kw=1e-3):
    """What a further kWh of contract costs where no more is delivered, in either direction: [step, agent]."""
    c, a = steps.contracts.quantity_kw, steps.accepted_kw
    # A seller that delivers no more than contracted promises more; so does a buyer that draws no more.
    sells, buys = a < c, a > c
    direction = np.where(sells, 1.0, np.where(buys, -1.0, 0.0))
    more = replace(steps.contracts, quantity_kw=c + delta_kw * direction)
    cost = (replace(steps, contracts=more).bills().total - steps.bills().total) / (delta_kw * HOURS)
    return np.where(direction == 0, np.nan, cost)


@pytest.mark.parametrize("mechanism", [bilateral, call_auction, mid_market_rate, direct])
def test_an_undelivered_contract_costs_between_zero_and_twice_the_spread(mechanism):
    steps = random_steps(mechanism)
    assert (np.abs(steps.price) > CAP).sum() > 100  # the nodal price and its cap play no part
    cost = cost_of_an_empty_promise(steps)
    cost = cost[np.isfinite(cost)]
    assert np.all((cost >= -1e-9) & (cost <= 2 * DELTA + 1e-9))


def test_what_an_undelivered_contract_costs_depends_on_the_substation_price_alone():
    for l_0 in (0.06, 0.2, 0.9, 3.0):
        steps = replace(random_steps(), substation_price=np.full(1000, l_0))
        cost, pi = cost_of_an_empty_promise(steps), steps.contracts.price_per_kwh
        sells = steps.accepted_kw < steps.contracts.quantity_kw
        expected = np.where(sells, min(l_0, CAP) + DELTA - pi, pi - min(l_0, CAP) + DELTA)
        known = np.isfinite(cost)
        np.testing.assert_allclose(cost[known], expected[known], rtol=0, atol=1e-9)


def test_a_substation_price_capped_below_the_lmp_pays_for_empty_promises_at_most_what_the_cap_takes():
    """With the cap at 1, an LMP of 1.2 and contracts at up to LMP + delta, phantom sellers earn up to 0.2 per kWh."""
    steps = random_steps(call_auction)
    lmp = np.full(1000, 1.2)
    price = 1.2 + np.random.default_rng(3).uniform(-DELTA, DELTA, (1000, 1)) + np.zeros((1000, 4))
    steps = replace(steps, lmp=lmp, substation_price=lmp, contracts=replace(steps.contracts, price_per_kwh=price))
    cost = cost_of_an_empty_promise(steps)
    sells = steps.accepted_kw < steps.contracts.quantity_kw
    assert np.all(cost[sells] < 0) and cost[sells].min() >= -0.2 - 1e-9
    buys = steps.accepted_kw > steps.contracts.quantity_kw
    assert np.all(cost[buys] <= 2 * DELTA + 0.2 + 1e-9)


def test_a_phantom_pair_loses_exactly_twice_the_spread_between_them():
    """Two agents of one owner contract with each other and deliver nothing: no price makes that pay."""
    rng = np.random.default_rng(4)
    pi = rng.uniform(-1, 3, (1000, 1)) + np.zeros((1000, 2))
    contracts = Contracts(quantity_kw=np.array([[10.0, -10.0]]) + np.zeros((1000, 2)), price_per_kwh=pi)
    b = bills(contracts, np.zeros((1000, 2)), rng.normal(0, 3, (1000, 2)), rng.normal(0, 3, 1000), **RULES)
    np.testing.assert_allclose(b.total.sum(axis=-1), 2 * DELTA * 10 * HOURS, rtol=1e-9)
