"""Nodal prices against differences of the cost and of the AC power flow; their signs; the transactive signal."""

from dataclasses import fields, replace

import numpy as np
import pytest

from peergrid.grid import feeder_from_tables, load_feeder, solve_power_flow
from peergrid.grid.dso import DsoQuery, DsoStatus, Generators, OpfDso, Penalty, dispatch_power_flow
from peergrid.grid.opf import UpperVoltage
from peergrid.grid.prices import te_price_per_kwh

LMP = 0.1
NO_TRADE = [0.0, 0.0, 0.0, 0.0]
IMPORTS = [-250.0, 0.0, -100.0, -250.0]
EXPORTS = [900.0, 0.0, 0.0, 900.0]
CASES = {
    "nothing binds": ([30.0, -20.0, 10.0, -40.0], 0.5, 400.0),
    "the lower voltage binds": (IMPORTS, 0.5, 400.0),
    "the upper voltage binds": (EXPORTS, 0.1, 400.0),
    "lines bind for imports": (IMPORTS, 0.3, 23.0),
    "lines bind for exports": ([0.0, 0.0, 1800.0, 300.0], 0.3, 60.0),
}


def operator(**settings):
    """Microgrids at buses 17, 22, 25 and 32 of the 33-bus feeder, lines near the substation without narrow rating."""
    feeder = load_feeder("ieee33")
    every = np.ones(feeder.n_bus)
    feeder = replace(feeder, v_min_pu=0.95 * every, v_max_pu=1.05 * every, i_max_a=400.0 * every)
    return OpfDso(feeder, [feeder.index(b) for b in (17, 22, 25, 32)], **settings)


def query(dso, proposed_kw=NO_TRADE, load_share=0.5, rating_a=400.0, **more):
    feeder, proposed_kw = dso.feeder, np.asarray(proposed_kw)
    i_max_a = np.full(feeder.n_bus, 400.0)
    i_max_a[[feeder.index(b) for b in (7, 25, 28)]] = rating_a
    share = np.full((*proposed_kw.shape[:-1], 1), load_share)
    load = {"load_kw": share * feeder.load_kw, "load_kvar": share * feeder.load_kvar}
    return DsoQuery(proposed_kw=proposed_kw, **({**load, "lmp_per_kwh": LMP, "i_max_a": i_max_a} | more))


def ask(case, **settings):
    dso = operator(**settings)
    asked = query(dso, *CASES[case])
    return dso, asked, dso(asked)


@pytest.mark.parametrize("case", CASES)
def test_the_cases_are_what_they_say(case):
    _, _, response = ask(case)
    assert response.status == DsoStatus.OPTIMAL
    assert (response.v_min_multiplier.max() > 1.0) == (case == "the lower voltage binds")
    assert (response.v_max_multiplier.max() > 1.0) == (case == "the upper voltage binds")
    assert (response.i_max_multiplier.max() > 1.0) == (case == "lines bind for imports")
    assert (response.i_max_lossless_multiplier.max() > 1.0) == (case == "lines bind for exports")


@pytest.mark.parametrize("upper_voltage", UpperVoltage)
@pytest.mark.parametrize("case", CASES)
def test_the_price_is_what_one_more_kwh_of_load_costs_where_none_is_shed(case, upper_voltage):
    dso, asked, response = ask(case, upper_voltage=upper_voltage)
    if response.status != DsoStatus.OPTIMAL:
        assert upper_voltage is UpperVoltage.PLAIN
        return
    for bus in (1, 5, dso.feeder.index(17), dso.feeder.index(25), dso.feeder.index(32)):
        step_kw = 0.5 * np.eye(33)[bus]
        more, less = (dso(replace(asked, load_kw=asked.load_kw + step)).cost_per_hour for step in (step_kw, -step_kw))
        np.testing.assert_allclose(response.price_per_kwh[bus], more - less, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_the_reactive_price_is_what_one_more_kvarh_of_load_costs(case):
    dso, asked, response = ask(case)
    for bus in (5, dso.feeder.index(32)):
        step_kvar = 0.5 * np.eye(33)[bus]
        more, less = (
            dso(replace(asked, load_kvar=asked.load_kvar + step)).cost_per_hour for step in (step_kvar, -step_kvar)
        )
        np.testing.assert_allclose(response.reactive_price_per_kvarh[bus], more - less, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_each_part_is_the_ac_sensitivity_times_its_multiplier(case):
    # Everything fixed but the substation: withdraw a little more at every bus, one after the other, and look.
    dso, asked, response = ask(case)
    feeder, s = dso.feeder, dso.feeder.base_kva
    assert response.shed_kw.sum() < 1e-3
    p_kw, q_kvar = -asked.load_kw, -asked.load_kvar
    np.add.at(p_kw, dso.trade_bus, response.accepted_kw)
    step_kw = 1.0

    def withdraw(kw):
        flow = solve_power_flow(feeder, p_kw - kw * np.eye(33), np.tile(q_kvar, (33, 1)))
        lossless_kw = -feeder.downstream_sum(p_kw - kw * np.eye(33))
        lossless_kvar = -feeder.downstream_sum(q_kvar)
        rise = feeder.path_sum(feeder.r_pu * lossless_kw + feeder.x_pu * lossless_kvar) / s
        return {
            "p_0": flow.substation_kw,
            "q_0": flow.substation_kvar,
            "v": flow.voltage_pu**2,
            "v_hat": feeder.v_source_pu**2 - 2.0 * rise,
            "l": (flow.current_a / feeder.base_a) ** 2,
            "s_hat": (lossless_kw**2 + lossless_kvar**2) / s**2
            - (asked.i_max_a / feeder.base_a) ** 2 * flow.voltage_pu[:, feeder.parent] ** 2,
        }

    up, down = withdraw(step_kw), withdraw(-step_kw)
    d = {name: (up[name] - down[name]) / (2 * step_kw) for name in up}
    parts, lambda_0, mu_0 = response.price_parts, response.price_per_kwh[0], response.reactive_price_per_kvarh[0]
    expected = {
        "energy": np.full(33, lambda_0),
        "loss": lambda_0 * (d["p_0"] - 1.0),
        "reactive": mu_0 * d["q_0"],
        "voltage": -d["v"] @ response.v_min_multiplier + d["v_hat"] @ response.v_max_multiplier,
        "congestion": d["l"] @ response.i_max_multiplier + d["s_hat"] @ response.i_max_lossless_multiplier,
    }
    for name, values in expected.items():
        np.testing.assert_allclose(getattr(parts, name), values, rtol=1e-4, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(parts.total(), response.price_per_kwh, atol=1e-5)


@pytest.mark.parametrize("upper_voltage", UpperVoltage)
@pytest.mark.parametrize("seed", range(3))
def test_parts_add_up_to_the_price(seed, upper_voltage):
    dso = operator(upper_voltage=upper_voltage)
    rng = np.random.default_rng(seed)
    response = dso(query(dso, rng.uniform(-1000.0, 1000.0, 4), rng.uniform(0.3, 0.9), 60.0))
    assert response.status == DsoStatus.OPTIMAL or upper_voltage is UpperVoltage.PLAIN
    if response.status == DsoStatus.OPTIMAL:
        np.testing.assert_allclose(response.price_parts.total(), response.price_per_kwh, atol=1e-5)


def test_an_idle_feeder_prices_energy_at_the_lmp_everywhere():
    dso = operator()
    response = dso(query(dso, load_share=0.0))
    np.testing.assert_allclose(response.price_per_kwh, LMP, atol=1e-6)
    for name in ("loss", "reactive", "voltage", "congestion"):
        np.testing.assert_allclose(getattr(response.price_parts, name), 0.0, atol=1e-6, err_msg=name)


def test_two_buses_price_marginal_losses():
    # In p.u. P = 1 + 0.1 P^2, so one more kW drawn takes 1 / (1 - 0.2 P) = 1 / sqrt(0.6) at the substation.
    bus = dict(base_kv=1.0, load_kw=0.0, load_kvar=0.0, capacitor_kvar=0.0, v_min_pu=0.5, v_max_pu=1.5)
    feeder = feeder_from_tables(
        [{"bus": "1", **bus}, {"bus": "2", **bus, "load_kw": 1000.0}],
        [{"from_bus": "1", "to_bus": "2", "r_ohm": 0.1, "x_ohm": 0.0, "i_max_a": ""}],
        name="two buses",
        substation="1",
    )
    dso = OpfDso(feeder, [])
    response = dso(
        DsoQuery(load_kw=feeder.load_kw, load_kvar=feeder.load_kvar, proposed_kw=np.zeros(0), lmp_per_kwh=LMP)
    )
    np.testing.assert_allclose(response.price_per_kwh, [LMP, LMP / np.sqrt(0.6)], rtol=1e-6)
    np.testing.assert_allclose(response.price_parts.loss, [0.0, LMP / np.sqrt(0.6) - LMP], atol=1e-7)


def test_limits_raise_the_price_where_imports_press_and_lower_it_where_exports_do():
    dso, _, low = ask("the lower voltage binds")
    far = dso.feeder.index(18)
    assert low.price_parts.voltage[far] > 0.05
    assert low.price_per_kwh[far] > LMP
    _, _, high = ask("the upper voltage binds")
    assert high.price_parts.voltage[far] < -0.05
    assert high.price_per_kwh[far] < LMP
    _, _, imports = ask("lines bind for imports")
    behind, before = dso.feeder.index(17), dso.feeder.index(6)
    assert imports.price_parts.congestion[behind] > 0.05
    assert abs(imports.price_parts.congestion[before]) < 0.1 * abs(imports.price_parts.congestion[behind])
    _, _, exports = ask("lines bind for exports")
    behind, before = dso.feeder.index(25), dso.feeder.index(24)
    assert exports.price_parts.congestion[behind] < -0.05
    assert abs(exports.price_parts.congestion[before]) < 0.1 * abs(exports.price_parts.congestion[behind])


@pytest.mark.parametrize("case", ["the lower voltage binds", "the upper voltage binds", "lines bind for exports"])
def test_a_curtailed_trade_sets_the_price_at_its_bus(case):
    # LMP + kappa + 2 lambda |t - a| where an import is cut short, LMP - kappa - 2 lambda |t - a| where an export is.
    dso, asked, response = ask(case)
    cut_kw = np.abs(asked.proposed_kw - response.accepted_kw)
    partly = (cut_kw > 1.0) & (np.abs(response.accepted_kw) > 1.0)
    assert partly.any()
    administrative = LMP - np.sign(asked.proposed_kw) * (0.05 + 2 * 0.005 * cut_kw)
    np.testing.assert_allclose(response.price_per_kwh[dso.trade_bus][partly], administrative[partly], atol=1e-5)


def test_a_partly_shed_load_sets_the_price_at_its_bus():
    # lambda + tan(phi) mu = voll + 2 c_ls s
    dso = operator(penalty=Penalty(voll_per_kwh=2.0, c_ls_per_kw2h=0.01))
    asked = query(dso, load_share=0.9)
    response = dso(asked)
    partly = (response.shed_kw > 0.1) & (response.shed_kw < asked.load_kw - 0.1)
    assert partly.any()
    tan_phi = asked.load_kvar / np.maximum(asked.load_kw, 1.0)
    worth = response.price_per_kwh + tan_phi * response.reactive_price_per_kvarh
    np.testing.assert_allclose(worth[partly], (2.0 + 0.02 * response.shed_kw)[partly], rtol=1e-6)
    left_alone = (response.shed_kw < 1e-4) & (asked.load_kw > 1.0)
    assert (worth[left_alone] <= 2.0 + 1e-5).all()


def test_a_generator_between_its_bounds_sets_the_price_at_its_bus():
    feeder = load_feeder("ieee33")
    one = {name: np.array([value]) for name, value in (("p_min_kw", 0.0), ("p_max_kw", 1500.0), ("a_per_kw2h", 5e-5))}
    free_kvar = {"q_min_kvar": np.array([-540.0]), "q_max_kvar": np.array([540.0])}
    dso = operator(generators=Generators(bus=(feeder.index(18),), b_per_kwh=np.array([0.1]), **one, **free_kvar))
    response = dso(query(dso, load_share=0.6))
    at, p_kw = feeder.index(18), response.generator_kw[0]
    assert 1.0 < p_kw < 1499.0
    np.testing.assert_allclose(response.price_per_kwh[at], 0.1 + 1e-4 * p_kw, rtol=1e-5)
    np.testing.assert_allclose(response.reactive_price_per_kvarh[at], 0.0, atol=1e-6)


def test_the_transactive_signal_is_the_recursion():
    dso, _, response = ask("the lower voltage binds")
    feeder = dso.feeder
    expected = np.full(33, LMP)
    for j in range(1, 33):
        per_line = 2.0 * feeder.r_ohm[j] * response.flow_kw[j]
        per_line /= 1000.0 * feeder.base_kv[j] ** 2 * response.voltage_pu[j] ** 2
        expected[j] = expected[feeder.parent[j]] * (1.0 + per_line)
    psi = te_price_per_kwh(feeder, response.flow_kw, response.voltage_pu, np.asarray(LMP))
    np.testing.assert_allclose(psi, expected, rtol=1e-12)


def test_the_transactive_signal_takes_batches_and_falls_where_power_flows_back():
    dso = operator()
    asked = query(dso, [EXPORTS, IMPORTS])
    physics = dispatch_power_flow(dso, dso(asked), dso.problem(asked))
    psi = te_price_per_kwh(dso.feeder, physics.flow_kw, physics.voltage_pu, np.array([LMP, 2 * LMP]))
    np.testing.assert_array_equal(psi[:, 0], [LMP, 2 * LMP])
    at, above = dso.feeder.index(17), dso.feeder.parent[dso.feeder.index(17)]
    assert psi[0, at] < psi[0, above]
    assert psi[1, at] > psi[1, above]


def test_parts_of_a_batch_equal_those_one_by_one():
    dso = operator()
    together = dso(query(dso, [EXPORTS, IMPORTS])).price_parts
    for row, proposed_kw in enumerate((EXPORTS, IMPORTS)):
        alone = dso(query(dso, proposed_kw)).price_parts
        for f in fields(alone):
            np.testing.assert_array_equal(getattr(together, f.name)[row], getattr(alone, f.name), err_msg=f.name)
