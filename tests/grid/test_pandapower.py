from __future__ import annotations

from typing import Any

import numpy as np
import pandapower as pp
import pandapower.networks as pn
import pytest

from peergrid.grid import Feeder, feeder_from_pandapower, load_feeder, solve_power_flow
from peergrid.grid.errors import InvalidFeeder


def a_net() -> Any:
    """20 kV -> transformer -> 0.4 kV, with everything that a feeder can say and nothing that it cannot."""
    net = pp.create_empty_network(name="village")
    for vn_kv in (20.0, 20.0, 0.4, 0.4, 0.4, 0.4, 0.4):
        pp.create_bus(net, vn_kv, min_vm_pu=0.95, max_vm_pu=1.05)
    pp.create_ext_grid(net, 0, vm_pu=1.01, va_degree=0.0)
    pp.create_line_from_parameters(net, 0, 1, 5.0, 0.3, 0.35, 0.0, 0.2, parallel=2, df=0.9)
    pp.create_transformer_from_parameters(net, 1, 2, 0.4, 20.0, 0.4, 1.4, 6.0, 0.0, 0.0, parallel=2, shift_degree=150)
    pp.create_line_from_parameters(net, 2, 3, 0.2, 0.2, 0.08, 0.0, 99999.0)
    pp.create_line_from_parameters(net, 5, 3, 0.1, 0.3, 0.08, 0.0, 0.142, max_loading_percent=80.0)
    pp.create_switch(net, 3, 4, "b")
    pp.create_load(net, 4, 0.1, 0.03, scaling=1.5)
    pp.create_load(net, 4, 0.02)
    pp.create_load(net, 5, 9.0, in_service=False)
    pp.create_sgen(net, 5, 0.08, -0.01, scaling=0.5)
    pp.create_shunt(net, 3, q_mvar=-0.015, step=2, max_step=2)
    # Out of service, or out of reach behind open switches.
    net.bus.loc[6, "in_service"] = False
    pp.create_load(net, 6, 5.0)
    pp.create_line_from_parameters(net, 4, 6, 1.0, 0.1, 0.1, 0.0, 0.1)
    open_line = pp.create_line_from_parameters(net, 2, 5, 1.0, 0.1, 0.1, 0.0, 0.1)
    pp.create_switch(net, 2, open_line, "l", closed=False)
    pp.create_line_from_parameters(net, 2, 4, 1.0, 0.1, 0.1, 0.0, 0.1, in_service=False)
    open_trafo = pp.create_transformer_from_parameters(net, 1, 5, 0.4, 20.0, 0.4, 1.4, 6.0, 0.0, 0.0)
    pp.create_switch(net, 1, open_trafo, "t", closed=False)
    pp.create_switch(net, 0, 5, "b", closed=False)
    pp.create_gen(net, 1, 1.0, in_service=False)
    return net


def faults_of(net: Any) -> str:
    with pytest.raises(InvalidFeeder) as error:
        feeder_from_pandapower(net)
    return str(error.value)


def assert_same_voltages(feeder: Feeder, net: Any) -> None:
    """Against pandapower's own answer, with shunts held at constant power as feeders hold them."""
    for index, shunt in net.shunt.iterrows():
        pp.create_sgen(net, shunt.bus, 0.0, -shunt.q_mvar * shunt.step)
        net.shunt.loc[index, "in_service"] = False
    pp.runpp(net, numba=False, tolerance_mva=1e-9)
    flow = solve_power_flow(feeder, -feeder.load_kw, -feeder.load_kvar)
    expected = net.res_bus.vm_pu.loc[[int(bus) for bus in feeder.bus]]
    np.testing.assert_allclose(flow.voltage_pu, expected, rtol=0, atol=1e-8)
    np.testing.assert_allclose(flow.substation_kw, 1000 * net.res_ext_grid.p_mw.sum(), rtol=1e-6)


def test_case33bw_is_the_shipped_ieee33():
    feeder, shipped = feeder_from_pandapower(pn.case33bw()), load_feeder("ieee33")
    assert feeder.name == "case33bw"
    assert [int(bus) + 1 for bus in feeder.bus] == [int(bus) for bus in shipped.bus]
    np.testing.assert_array_equal(feeder.parent, shipped.parent)
    for field in ("r_ohm", "x_ohm", "i_max_a", "base_kv", "v_min_pu", "v_max_pu", "load_kw", "load_kvar"):
        np.testing.assert_allclose(getattr(feeder, field), getattr(shipped, field), rtol=1e-12)
    assert feeder.v_source_pu == shipped.v_source_pu


def test_every_element_finds_its_place():
    feeder = feeder_from_pandapower(a_net())
    assert feeder.name == "village"
    assert feeder.v_source_pu == 1.01
    assert feeder.bus == ("0", "1", "2", "3", "5")
    assert feeder.parent.tolist() == [-1, 0, 1, 2, 3]
    np.testing.assert_allclose(feeder.load_kw, [0, 0, 0, 170, -40])
    np.testing.assert_allclose(feeder.load_kvar, [0, 0, 0, 45, 5])
    np.testing.assert_allclose(feeder.capacitor_kvar, [0, 0, 0, 30, 0])
    np.testing.assert_allclose(feeder.v_min_pu, 0.95)
    # Two transformers of 0.4 MVA: 0.4² / 0.8 = 0.2 ohm.
    np.testing.assert_allclose(feeder.r_ohm, [0, 0.75, 0.2 * 0.014, 0.04, 0.03])
    np.testing.assert_allclose(feeder.x_ohm, [0, 0.875, 0.2 * np.sqrt(0.06**2 - 0.014**2), 0.016, 0.008])
    np.testing.assert_allclose(feeder.i_max_a, [np.inf, 360, 800 / np.sqrt(3) / 0.4, np.inf, 0.8 * 142])


def test_a_net_with_a_transformer_has_the_voltages_of_pandapower():
    net = a_net()
    assert_same_voltages(feeder_from_pandapower(net), net)


def test_a_transformer_that_steps_up_has_the_voltages_of_pandapower():
    net = a_net()
    net.ext_grid.bus = 5
    feeder = feeder_from_pandapower(net)
    assert feeder.bus == ("5", "3", "2", "1", "0")
    assert feeder.i_max_a[3] == pytest.approx(800 / np.sqrt(3) / 20)
    assert_same_voltages(feeder, net)


def test_the_cigre_low_voltage_network_has_the_voltages_of_pandapower():
    net = pn.create_cigre_network_lv()
    assert_same_voltages(feeder_from_pandapower(net, name="cigre"), net)


def test_joined_buses_keep_the_tightest_limits():
    net = a_net()
    net.bus.loc[4, ["min_vm_pu", "max_vm_pu"]] = 0.97, 1.1
    net.bus.loc[3, ["min_vm_pu", "max_vm_pu"]] = np.nan
    feeder = feeder_from_pandapower(net)
    assert (feeder.v_min_pu[3], feeder.v_max_pu[3]) == (0.97, 1.1)


def test_charging_is_refused_with_its_size_and_neglected_on_demand():
    net = a_net()
    net.line.loc[0, "c_nf_per_km"] = 250.0
    # 2 pi * 50 Hz * 250 nF/km * 5 km * 2 systems * (20 kV)² = 314.2 kvar.
    assert "the capacitance of lines [0] gives 314.2 kvar at 1 p.u. (neglect_charging=True leaves it out)" in (
        faults_of(net)
    )
    neglecting = feeder_from_pandapower(net, neglect_charging=True)
    np.testing.assert_array_equal(neglecting.x_ohm, feeder_from_pandapower(a_net()).x_ohm)


def test_iron_losses_are_neglected_on_demand():
    net = a_net()
    net.trafo["pfe_kw"], net.trafo["i0_percent"] = 3.0, 0.4
    assert "has iron losses: 3 kW, with 0.4 % of its rating drawn without load" in faults_of(net)
    neglecting = feeder_from_pandapower(net, neglect_iron_losses=True)
    np.testing.assert_array_equal(neglecting.r_ohm, feeder_from_pandapower(a_net()).r_ohm)


def test_buses_are_named_by_a_column_of_theirs():
    net = a_net()
    net.bus["name"] = [f"K{i:02d}" for i in net.bus.index]
    named, by_index = feeder_from_pandapower(net, bus_names="name"), feeder_from_pandapower(net)
    assert named.bus == tuple(f"K{int(bus):02d}" for bus in by_index.bus)
    net.bus["name"] = "K"
    with pytest.raises(InvalidFeeder, match="bus names are not unique"):
        feeder_from_pandapower(net, bus_names="name")
    with pytest.raises(InvalidFeeder, match=r"net\.bus has no column 'label'"):
        feeder_from_pandapower(net, bus_names="label")


def test_a_path_is_no_net():
    with pytest.raises(InvalidFeeder, match=r"a str is no pandapower net; pandapower\.from_json"):
        feeder_from_pandapower("net.json")


def test_everything_without_a_place_is_named_at_once():
    net = a_net()
    pp.create_gen(net, 1, 1.0)
    pp.create_storage(net, 3, 0.1, 1.0)
    pp.create_transformer3w_from_parameters(
        net, 0, 1, 2, 20, 20, 0.4, 1, 1, 1, 6, 6, 6, 1, 1, 1, pfe_kw=0, i0_percent=0
    )
    pp.create_ext_grid(net, 5)
    net.line.loc[1, "g_us_per_km"] = 2.0
    net.line.loc[2, "to_bus"] = 0
    net.trafo.loc[0, ["pfe_kw", "vn_lv_kv", "tap_pos", "tap_neutral", "tap_step_percent"]] = 1.3, 0.42, 1, 0, 2.5
    net.trafo.loc[1, "i0_percent"] = 0.3
    net.load.loc[0, "const_z_p_percent"] = 30.0
    net.shunt.loc[0, "p_mw"] = 0.001
    net.switch.loc[0, "z_ohm"] = 0.01
    pp.create_switch(net, 1, 2, "b")
    message = faults_of(net)
    for fault in (
        "pandapower net 'village': ",
        "a feeder cannot represent gen [1]",
        "a feeder cannot represent storage [0]",
        "a feeder cannot represent trafo3w [0]",
        "there are 2 external grids in service at buses [0, 5]",
        "line 1 has a conductance",
        "line 2 joins buses of different vn_kv",
        "trafo 0 has iron losses",
        "trafo 1 has iron losses",
        "trafo 0 has another ratio of voltages than its buses",
        "trafo 0 has its tap off nominal",
        "load 0 varies with voltage",
        "shunt 0 draws active power",
        "switch 0 has an impedance",
        "closed switches join buses [1, 2] of different vn_kv",
    ):
        assert fault in message


def test_a_mesh_is_named_by_the_line_that_closes_it():
    net = a_net()
    net.switch.closed = True
    net.switch = net.switch.drop(index=[2, 3])
    net.trafo.loc[1, "in_service"] = False
    assert "not radial: lines [2-5] close loops" in faults_of(net)


def test_buses_out_of_reach_are_named():
    net = a_net()
    net.line.loc[2, "in_service"] = False
    assert "no line leads from the substation to buses [5]" in faults_of(net)


def test_a_net_without_external_grid_is_refused():
    net = a_net()
    net.ext_grid.in_service = False
    assert "there are 0 external grids in service; a feeder has one" in faults_of(net)
