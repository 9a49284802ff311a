from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandapower as pp
import pytest

from peergrid.grid import (
    Feeder,
    PowerFlow,
    PowerFlowStatus,
    feeder_from_tables,
    feeder_names,
    load_feeder,
    solve_power_flow,
)

BENCHMARKS = Path(__file__).parents[2] / "benchmarks" / "data"
FEEDERS = [*feeder_names(), str(BENCHMARKS / "ieee8500_primary")]


def at_nominal_load(feeder: Feeder, share: float | np.ndarray = 1.0) -> PowerFlow:
    return solve_power_flow(feeder, -share * feeder.load_kw, -share * feeder.load_kvar)


def two_buses(**changes: float) -> Feeder:
    """1 kV, and 0.1 + 0.1j ohm to a load of 1000 kW."""
    bus = dict(base_kv=1.0, load_kw=0.0, load_kvar=0.0, capacitor_kvar=0.0, v_min_pu=0.9, v_max_pu=1.1)
    return feeder_from_tables(
        [{"bus": "1", **bus}, {"bus": "2", **bus, "load_kw": 1000.0, **changes}],
        [{"from_bus": "1", "to_bus": "2", "r_ohm": 0.1, "x_ohm": 0.1, "i_max_a": ""}],
        name="two buses",
        substation="1",
    )


def street_behind_a_transformer() -> Feeder:
    """20 kV, 5 km of line, a transformer to 0.4 kV (ohms of its low-voltage side), and a street with a branch."""
    bus = dict(load_kw=0.0, load_kvar=0.0, capacitor_kvar=0.0, v_min_pu=0.9, v_max_pu=1.1)
    low = {**bus, "base_kv": 0.4, "load_kw": 40.0, "load_kvar": 12.0}
    return feeder_from_tables(
        [{"bus": "hv", **bus, "base_kv": 20.0}, {"bus": "mv", **bus, "base_kv": 20.0, "load_kw": 800.0}]
        + [{"bus": b, **low} for b in ("lv", "street", "yard")]
        + [{"bus": "pv", **low, "load_kw": -60.0, "load_kvar": 0.0, "capacitor_kvar": 10.0}],
        [
            {"from_bus": "hv", "to_bus": "mv", "r_ohm": 1.5, "x_ohm": 1.8, "i_max_a": 300.0},
            {"from_bus": "mv", "to_bus": "lv", "r_ohm": 0.005, "x_ohm": 0.02, "i_max_a": 600.0},
            {"from_bus": "lv", "to_bus": "street", "r_ohm": 0.05, "x_ohm": 0.02, "i_max_a": 250.0},
            {"from_bus": "street", "to_bus": "pv", "r_ohm": 0.04, "x_ohm": 0.02, "i_max_a": 250.0},
            {"from_bus": "lv", "to_bus": "yard", "r_ohm": 0.08, "x_ohm": 0.03, "i_max_a": 250.0},
        ],
        name="street",
        substation="hv",
        v_source_pu=1.02,
    )


def solved_by_pandapower(feeder: Feeder) -> Any:
    """The same feeder at nominal load, solved by Newton's method; net.bus keeps the feeder's order."""
    net = pp.create_empty_network()
    for j in range(feeder.n_bus):
        pp.create_bus(net, feeder.base_kv[j])
    pp.create_ext_grid(net, 0, vm_pu=feeder.v_source_pu)
    drawn = np.flatnonzero((feeder.load_kw != 0) | (feeder.load_kvar != 0) | (feeder.capacitor_kvar != 0))
    kvar = feeder.load_kvar - feeder.capacitor_kvar
    pp.create_loads(net, drawn, p_mw=feeder.load_kw[drawn] / 1000, q_mvar=kvar[drawn] / 1000)
    is_transformer = feeder.base_kv != feeder.base_kv[feeder.parent]
    is_transformer[0] = False
    lines = np.flatnonzero(~is_transformer)[1:]
    pp.create_lines_from_parameters(
        net,
        feeder.parent[lines],
        lines,
        length_km=1.0,
        r_ohm_per_km=feeder.r_ohm[lines],
        x_ohm_per_km=feeder.x_ohm[lines],
        c_nf_per_km=0.0,
        max_i_ka=99999.0,
    )
    for j in np.flatnonzero(is_transformer):
        base_ohm = feeder.base_kv[j] ** 2  # of 1 MVA
        pp.create_transformer_from_parameters(
            net,
            feeder.parent[j],
            j,
            sn_mva=1.0,
            vn_hv_kv=feeder.base_kv[feeder.parent[j]],
            vn_lv_kv=feeder.base_kv[j],
            vkr_percent=100.0 * feeder.r_ohm[j] / base_ohm,
            vk_percent=100.0 * np.hypot(feeder.r_ohm[j], feeder.x_ohm[j]) / base_ohm,
            pfe_kw=0.0,
            i0_percent=0.0,
        )
    # 1e-9 is below what rounding leaves of the largest feeder's mismatch on some processors.
    pp.runpp(net, numba=False, tolerance_mva=1e-8, max_iteration=30)
    return net


@pytest.mark.parametrize("feeder", [*map(load_feeder, FEEDERS), street_behind_a_transformer()], ids=lambda f: f.name)
def test_every_feeder_agrees_with_pandapower(feeder):
    flow = at_nominal_load(feeder)
    net = solved_by_pandapower(feeder)
    np.testing.assert_allclose(flow.voltage_pu, net.res_bus.vm_pu, rtol=0, atol=1e-8)
    np.testing.assert_allclose(np.degrees(flow.angle_rad), net.res_bus.va_degree, rtol=0, atol=1e-6)
    np.testing.assert_allclose(flow.substation_kw, 1000 * net.res_ext_grid.p_mw.sum(), rtol=1e-7)
    np.testing.assert_allclose(flow.substation_kvar, 1000 * net.res_ext_grid.q_mvar.sum(), rtol=1e-6)
    lines = net.line.to_bus.to_numpy()
    np.testing.assert_allclose(flow.flow_kw[lines], 1000 * net.res_line.p_from_mw, rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(flow.current_a[lines], 1000 * net.res_line.i_ka, rtol=1e-6, atol=1e-5)
    transformers = net.trafo.lv_bus.to_numpy()
    np.testing.assert_allclose(flow.current_a[transformers], 1000 * net.res_trafo.i_lv_ka, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "losses_kw", "lowest_pu", "at_bus"),
    [
        ("ieee33", 202.68, 0.91309, "18"),
        ("ieee37", 58.859, 0.95725, "740"),
        ("ieee69", 224.992, 0.90919, "65"),
        ("ieee123", 98.592, 0.94605, "114"),
        ("caracas141", 632.696, 0.92786, "87"),
        ("eulv906", 0.985, 1.02803, "562"),
    ],
)
def test_losses_and_lowest_voltage_are_the_known_ones(name, losses_kw, lowest_pu, at_bus):
    feeder = load_feeder(name)
    flow = at_nominal_load(feeder)
    assert float(flow.losses_kw) == pytest.approx(losses_kw, abs=0.01 if name == "ieee33" else 0.0005)
    assert flow.voltage_pu.min() == pytest.approx(lowest_pu, abs=5e-6)
    assert feeder.bus[flow.voltage_pu.argmin()] == at_bus


def test_two_buses_match_the_hand_calculation():
    # 100 kW over r = 0.1 p.u. (base 1 MVA, 1 ohm), capacitors making the far bus draw Q = 0:
    # v² + r P = v for the real part with x P = v sin(angle), so v⁴ + (2 r P - 1) v² + (r² + x²) P² = 0.
    flow = solve_power_flow(two_buses(capacitor_kvar=30.0), np.array([0.0, -100.0]), np.array([0.0, -30.0]))
    rp, z2p2 = 0.1 * 0.1, (0.1**2 + 0.1**2) * 0.1**2
    v2 = (1 - 2 * rp + np.sqrt((1 - 2 * rp) ** 2 - 4 * z2p2)) / 2
    assert flow.voltage_pu[1] ** 2 == pytest.approx(v2, abs=1e-12)
    losses_kw = 0.1 * 0.1**2 / v2 * 1000
    assert float(flow.losses_kw) == pytest.approx(losses_kw)
    assert float(flow.losses_kvar) == pytest.approx(losses_kw)
    assert flow.flow_kw[1] == pytest.approx(100 + losses_kw)
    assert float(flow.substation_kw) == pytest.approx(100 + losses_kw)
    assert flow.current_a[1] == pytest.approx(100 / (np.sqrt(3) * np.sqrt(v2) * 1.0))


@pytest.mark.parametrize("name", FEEDERS)
def test_a_batch_equals_one_by_one_bit_for_bit(name):
    feeder = load_feeder(name)
    shares = np.random.default_rng(0).uniform(-0.5, 1.2, size=(2, 3, feeder.n_bus))
    batch = at_nominal_load(feeder, shares)
    assert batch.losses_kw.shape == (2, 3)
    for index in np.ndindex(2, 3):
        alone = at_nominal_load(feeder, shares[index])
        for field in vars(alone):
            np.testing.assert_array_equal(getattr(batch, field)[index], getattr(alone, field))


@pytest.mark.parametrize("overload", [10.0, 1e3, 1e9])
@pytest.mark.parametrize("name", ["ieee33", "eulv906"])
def test_a_hopeless_load_diverges_with_finite_figures_and_leaves_its_neighbours_alone(name, overload):
    feeder = load_feeder(name)
    if name == "eulv906":
        overload *= 10
    flow = at_nominal_load(feeder, np.array([[0.5], [overload], [1.0]]))
    assert flow.status.tolist() == [PowerFlowStatus.CONVERGED, PowerFlowStatus.DIVERGED, PowerFlowStatus.CONVERGED]
    for field in vars(flow):
        assert np.isfinite(getattr(flow, field)).all()
    np.testing.assert_array_equal(flow.voltage_pu[2], at_nominal_load(feeder).voltage_pu)


def test_the_limit_of_transport_is_where_theory_puts_it():
    # With r = x and no reactive load, v⁴ + (2 r P - 1) v² + 2 r² P² = 0 has a solution up to P = (√2 - 1) / (2 r).
    most_kw = 1000 * (np.sqrt(2) - 1) / 0.2
    p_kw = np.array([[0.0, -0.98 * most_kw], [0.0, -1.02 * most_kw]])
    flow = solve_power_flow(two_buses(), p_kw, np.zeros((2, 2)))
    assert flow.status.tolist() == [PowerFlowStatus.CONVERGED, PowerFlowStatus.DIVERGED]


def test_every_status_says_what_it_means():
    assert all(len(status.sentence) > 20 for status in PowerFlowStatus)


@pytest.mark.parametrize("v_source_pu", [None, 1.03])
def test_an_idle_feeder_sits_at_the_source_voltage(v_source_pu):
    feeder = load_feeder("eulv906")
    idle = np.zeros(feeder.n_bus)
    flow = solve_power_flow(feeder, idle, idle, v_source_pu=v_source_pu)
    np.testing.assert_array_equal(flow.voltage_pu, 1.05 if v_source_pu is None else v_source_pu)
    assert not flow.current_a.any()
    assert not flow.losses_kw.any()


def test_exports_raise_voltage_and_flow_towards_the_substation():
    feeder = load_feeder("ieee33")
    p_kw = np.zeros(feeder.n_bus)
    p_kw[feeder.index(18)] = 500.0
    flow = solve_power_flow(feeder, p_kw, np.zeros(feeder.n_bus))
    on_the_way = feeder.on_path[feeder.index(18)]
    assert (np.diff(flow.voltage_pu[on_the_way]) > 0).all()
    assert (flow.flow_kw[on_the_way][1:] < 0).all()
    assert float(flow.substation_kw) == pytest.approx(float(flow.losses_kw) - 500.0)


def test_capacitors_raise_voltage():
    feeder = load_feeder("ieee123")
    flow = solve_power_flow(feeder, np.zeros(feeder.n_bus), np.zeros(feeder.n_bus))
    assert flow.voltage_pu[feeder.index(83)] > 1.0
    assert float(flow.substation_kvar) == pytest.approx(float(flow.losses_kvar) - 750.0)


@pytest.mark.parametrize("name", FEEDERS)
def test_power_balances_at_every_bus(name):
    # Kirchhoff's current law, written with the voltages alone: S_j = v_j conj(sum of the currents that leave bus j).
    feeder = load_feeder(name)
    flow = at_nominal_load(feeder)
    v = flow.voltage_pu * np.exp(1j * flow.angle_rad)
    z = (feeder.r_pu + 1j * feeder.x_pu)[1:]
    into = np.append(0, (v[feeder.parent[1:]] - v[1:]) / z)
    out = np.zeros_like(v)
    np.add.at(out, feeder.parent[1:], into[1:])
    injected_kva = v * np.conj(out - into) * feeder.base_kva
    expected_kva = -feeder.load_kw + 1j * (feeder.capacitor_kvar - feeder.load_kvar)
    expected_kva[0] += flow.substation_kw + 1j * flow.substation_kvar
    # Some lines are so short that an ulp of voltage across them is already 1e-6 of the load.
    np.testing.assert_allclose(injected_kva, expected_kva, rtol=0, atol=2e-6 * feeder.base_kva)
