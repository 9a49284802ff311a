"""How far the transactive signal psi is from the exact nodal price, and why."""

import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from peergrid.grid import feeder_from_tables, load_feeder
from peergrid.grid.dso import DsoQuery, DsoStatus, OpfDso
from peergrid.grid.opf.admm import AdmmOpf
from peergrid.grid.prices import te_price_per_kwh

LMP = 0.1
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PROPOSED_PU = np.array(
    [[0.05, -0.05, 0.02, -0.02], [-0.1, -0.1, 0.0, -0.1], [0.15, 0.1, 0.15, 0.0], [-0.1, 0.1, 0.1, -0.1]]
)


def asked(name, v_min_pu=0.85, v_max_pu=1.15, narrowest_a=np.inf):
    """An operator with four trades, a batch of proposals, the response to them, and psi from the LMP."""
    feeder = load_feeder(name)
    every = np.ones(feeder.n_bus)
    trade_bus = np.linspace(feeder.n_bus // 4, feeder.n_bus - 1, 4).astype(int)
    i_max_a = np.full(feeder.n_bus, np.inf)
    i_max_a[trade_bus[2]] = narrowest_a
    dso = OpfDso(replace(feeder, v_min_pu=v_min_pu * every, v_max_pu=v_max_pu * every, i_max_a=i_max_a), trade_bus)
    load_share = np.array([[0.3], [0.9], [0.4], [0.7]])
    query = DsoQuery(
        load_kw=load_share * feeder.load_kw,
        load_kvar=load_share * feeder.load_kvar,
        proposed_kw=PROPOSED_PU * feeder.base_kva,
        lmp_per_kwh=LMP,
    )
    response = dso(query)
    assert (response.status == DsoStatus.OPTIMAL).all()
    psi = te_price_per_kwh(feeder, response.flow_kw, response.voltage_pu, np.full(4, LMP))
    return dso, query, response, psi


@pytest.fixture(scope="module")
def signals():
    """benchmarks/signals.py, which imports its neighbours."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield import_module("signals")
    finally:
        sys.path.remove(str(BENCHMARKS))


def test_on_one_line_psi_lacks_the_squared_impedance_alone():
    # LMP (1 + 2 r P / (v - |z|^2 l)) is the exact price, reactive losses and the drop of voltage included.
    bus = dict(base_kv=1.0, load_kw=0.0, load_kvar=0.0, capacitor_kvar=0.0, v_min_pu=0.5, v_max_pu=1.5)
    r, x = 0.04, 0.06
    feeder = feeder_from_tables(
        [{"bus": "1", **bus}, {"bus": "2", **bus, "load_kw": 1000.0, "load_kvar": 500.0}],
        [{"from_bus": "1", "to_bus": "2", "r_ohm": r, "x_ohm": x, "i_max_a": ""}],
        name="one line",
        substation="1",
    )
    response = OpfDso(feeder, [])(
        DsoQuery(load_kw=feeder.load_kw, load_kvar=feeder.load_kvar, proposed_kw=np.zeros(0), lmp_per_kwh=LMP)
    )
    p, q, v = response.flow_kw[1] / 1000.0, response.flow_kvar[1] / 1000.0, response.voltage_pu[1] ** 2
    lossless_v = v - (r**2 + x**2) * (p**2 + q**2)
    np.testing.assert_allclose(lossless_v, 1.0 - 2.0 * (r * p + x * q), rtol=1e-6)
    np.testing.assert_allclose(response.price_per_kwh[1], LMP * (1.0 + 2.0 * r * p / lossless_v), rtol=1e-6)
    psi = te_price_per_kwh(feeder, response.flow_kw, response.voltage_pu, np.asarray(LMP))
    np.testing.assert_allclose(psi[1], response.price_per_kwh[1], rtol=1e-3)
    assert psi[1] < response.price_per_kwh[1]


# Shares of the LMP by which psi may lie below the nodal price; above it only by little, where power flows back.
@pytest.mark.parametrize(("name", "share"), [("ieee33", 0.02), ("ieee37", 0.003), ("ieee69", 0.02), ("ieee123", 0.005)])
def test_where_nothing_binds_psi_is_a_little_below_the_nodal_price(name, share):
    _, _, response, psi = asked(name)
    parts = response.price_parts
    for name_of_part in ("reactive", "voltage", "congestion"):
        np.testing.assert_allclose(getattr(parts, name_of_part), 0.0, atol=1e-6)
    missing = response.price_per_kwh - psi
    assert missing.min() > -2e-4 * LMP
    assert 5e-4 * LMP < missing.max() < share * LMP
    # Losses do count: without them a price is wrong by much more than psi.
    assert np.abs(response.price_per_kwh - LMP).max() > 10 * missing.max()


@pytest.mark.parametrize(
    ("part", "limits"),
    [("voltage", {"v_min_pu": 0.95}), ("voltage", {"v_max_pu": 1.01}), ("congestion", {"narrowest_a": 15.0})],
)
def test_where_a_limit_binds_psi_lacks_its_part(part, limits):
    _, _, response, psi = asked("ieee33", **limits)
    lacking = getattr(response.price_parts, part)
    assert np.abs(lacking).max() > 0.5 * LMP
    np.testing.assert_allclose(psi + lacking, response.price_per_kwh, atol=0.02 * LMP)


def test_what_psi_lacks_of_the_losses_is_reactive_losses_and_falling_voltage(signals):
    dso, _, response, psi = asked("ieee33")
    lmp = np.full(4, LMP)
    d = signals.differences(dso.feeder, response, response.price_parts, lmp, 1.1 * lmp)
    assert d.unexplained() < 1e-5
    np.testing.assert_allclose(d.root, 10.0 * psi / LMP, rtol=1e-9)
    np.testing.assert_allclose(d.own_drop + d.reactive_losses + d.falling_voltage, d.losses, atol=1e-9)
    assert np.abs(d.own_drop).max() < 0.01
    assert (d.falling_voltage <= 1e-6).all()
    assert d.falling_voltage.min() < d.reactive_losses.min() < -0.1


@pytest.mark.parametrize("name", ["ieee33", "ieee37"])
def test_messages_between_neighbours_bring_psi_of_the_central_solution(name):
    dso, query, _, psi = asked(name)
    problem = dso.problem(query)
    device_bus = problem.injections.bus
    distributed = AdmmOpf(dso.feeder, device_bus, np.arange(len(device_bus)) == 0, dso.upper_voltage)
    np.testing.assert_allclose(distributed.solve(problem).signal_per_kwh, psi, rtol=1e-5)
