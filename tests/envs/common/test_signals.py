"""The transactive signal of an answer: the coordinators' own where there are any, by the recursion elsewhere."""

from dataclasses import replace

import numpy as np
import pytest

from peergrid.envs.common.signals import te_signal_per_kwh
from peergrid.envs.p2p_trading.scenario import load_scenario
from peergrid.envs.p2p_trading.simulation import Simulation
from peergrid.envs.transactive import scenario as transactive
from peergrid.envs.transactive.simulation import Transactive
from peergrid.grid import load_feeder
from peergrid.grid.dso import DsoQuery, DsoStatus, OpfDso, UncheckedDso
from peergrid.grid.opf.admm import AdmmOpf
from peergrid.grid.prices import te_price_per_kwh

LMP, ROOT = np.array([0.1, 0.12]), np.array([0.08, 0.13])
FEEDER = load_feeder("ieee37")
TRADE_BUS = [FEEDER.index(bus) for bus in ("713", "738")]


def asked(**more):
    load = {"load_kw": 0.6 * FEEDER.load_kw, "load_kvar": 0.6 * FEEDER.load_kvar}
    batch = {name: np.stack([values, 0.8 * values]) for name, values in load.items()}
    return DsoQuery(**batch, proposed_kw=np.array([[20.0, -30.0], [0.0, 15.0]]), lmp_per_kwh=LMP, **more)


def recursion(response, root_per_kwh):
    return te_price_per_kwh(FEEDER, response.flow_kw, response.voltage_pu, root_per_kwh)


@pytest.mark.parametrize("solver", ["interior_point", "conic"])
def test_central_solvers_leave_it_to_the_recursion(solver):
    response = OpfDso(FEEDER, TRADE_BUS, solver=solver)(asked(root_price_per_kwh=ROOT))
    assert response.te_signal_per_kwh is None
    np.testing.assert_array_equal(te_signal_per_kwh(FEEDER, response, ROOT), recursion(response, ROOT))


def test_coordinators_report_what_they_exchanged_from_the_root_price_that_they_were_given():
    dso, query = OpfDso(FEEDER, TRADE_BUS, solver="admm"), asked(root_price_per_kwh=ROOT)
    response, problem = dso(query), dso.problem(query)
    bus = problem.injections.bus
    exchanged = AdmmOpf(FEEDER, bus, np.arange(len(bus)) == 0, dso.upper_voltage).solve(problem).signal_per_kwh
    signal = te_signal_per_kwh(FEEDER, response, ROOT)
    np.testing.assert_array_equal(signal, exchanged)
    np.testing.assert_array_equal(signal[:, 0], ROOT)
    assert 0.0 < np.abs(signal / recursion(response, ROOT) - 1.0).max() < 1e-5


def test_without_a_root_price_coordinators_start_from_the_nodal_price_of_the_substation():
    response = OpfDso(FEEDER, TRADE_BUS, solver="admm")(asked())
    np.testing.assert_allclose(response.te_signal_per_kwh[:, 0], LMP, rtol=1e-5)


def test_where_the_coordinators_flows_are_not_those_that_flow_the_recursion_counts():
    dso = OpfDso(FEEDER, TRADE_BUS, solver="admm")
    response = dso(asked(root_price_per_kwh=ROOT))
    odd = np.full_like(response.voltage_pu, 7.0)
    for status in DsoStatus:
        other = replace(response, te_signal_per_kwh=odd, status=np.array([DsoStatus.OPTIMAL, status]))
        signal = te_signal_per_kwh(FEEDER, other, ROOT)
        np.testing.assert_array_equal(signal[0], odd[0])
        expected = odd if status is DsoStatus.OPTIMAL else recursion(response, ROOT)
        np.testing.assert_array_equal(signal[1], expected[1])


def test_an_operator_that_does_not_look_has_no_signals_of_coordinators():
    unchecked = UncheckedDso(OpfDso(FEEDER, TRADE_BUS, solver="admm"))
    assert unchecked(asked(root_price_per_kwh=ROOT)).te_signal_per_kwh is None


def test_the_transactive_environment_reports_the_coordinators_signals():
    simulation = Transactive(transactive.load_scenario("ieee37", intervals=2), dso="admm")
    simulation.reset(seed=0)
    rng, moved = np.random.default_rng(0), 0
    for _ in range(3):
        _, outcome = simulation.step(rng.uniform(-1, 1, (1, simulation.n_agent, 3)))
        own, flows = outcome.response.te_signal_per_kwh, recursion(outcome.response, outcome.root_per_kwh)
        np.testing.assert_array_equal(outcome.signal_per_kwh, own)
        np.testing.assert_array_equal(own[:, 0], outcome.root_per_kwh)
        assert 0.0 < np.abs(own / flows - 1.0).max() < 1e-5
        moved += outcome.iteration[0] > 0
    assert moved  # the root was not the price that it starts from


def test_the_signals_of_the_day_before_are_the_coordinators_too():
    def signals(dso):
        simulation = Transactive(transactive.load_scenario("ieee37", intervals=2), dso=dso)
        simulation.reset(seed=0)
        return simulation.running()[1].day_ahead.signal_per_kwh

    np.testing.assert_allclose(signals("admm"), signals("interior_point"), rtol=1e-5)
    assert (signals("admm") != signals("interior_point")).any()


@pytest.mark.parametrize("rounds", [1, 2])
def test_the_market_reports_the_coordinators_signals(rounds):
    scenario = load_scenario("ieee33", intervals=2)
    scenario = replace(scenario, market=replace(scenario.market, correction_rounds=rounds))
    simulation = Simulation(replace(scenario, dso=replace(scenario.dso, solver="admm")), predictor="none")
    simulation.reset(seed=0)
    rng = np.random.default_rng(3)
    for _ in range(2):
        _, outcome = simulation.step(rng.uniform(-1, 1, (1, simulation.n_agent, 4)))
        response, at = outcome.response, simulation.params.agent_bus
        assert (response.status == DsoStatus.OPTIMAL).all()
        np.testing.assert_array_equal(outcome.te_price_per_kwh, response.te_signal_per_kwh[:, at])
        np.testing.assert_array_equal(response.te_signal_per_kwh[:, 0], outcome.lmp_per_kwh)
        flows = te_price_per_kwh(simulation.params.feeder, response.flow_kw, response.voltage_pu, outcome.lmp_per_kwh)
        np.testing.assert_allclose(outcome.te_price_per_kwh, flows[:, at], rtol=1e-5)
