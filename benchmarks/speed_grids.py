"""The same feeder in pandapower, lightsim2grid and power-grid-model: power flows of each, and pandapower's OPF.

Those whose package is not installed are None here in place of the module. All run on one thread, start flat and stop
at a tolerance of 1e-8.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from speed_problems import Answer

from peergrid.grid.dso import OpfDso
from peergrid.grid.feeder import Feeder
from peergrid.grid.opf.problem import OpfProblem, OpfStatus

try:
    import pandapower
    from pandapower.auxiliary import OPFNotConverged
except ImportError:
    pandapower = None
try:
    import power_grid_model as pgm
except ImportError:
    pgm = None
try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lightsim2grid.injectionSweep import InjectionSweepCPP
        from lightsim2grid.network import init_from_pandapower
except ImportError:
    init_from_pandapower = None

TOLERANCE = 1e-8
ITERATIONS = 20


def pandapower_net(feeder: Feeder) -> Any:
    """The feeder as a pandapower net: bus j at index j, line j at index j - 1, a load at every bus."""
    net = pandapower.create_empty_network(sn_mva=feeder.base_kva / 1e3)
    for j in range(feeder.n_bus):
        pandapower.create_bus(
            net, feeder.base_kv[j], min_vm_pu=feeder.v_min_pu[j], max_vm_pu=feeder.v_max_pu[j], index=j
        )
        pandapower.create_load(net, j, feeder.load_kw[j] / 1e3, feeder.load_kvar[j] / 1e3, index=j)
    for j in range(1, feeder.n_bus):
        pandapower.create_line_from_parameters(
            net,
            int(feeder.parent[j]),
            j,
            length_km=1.0,
            r_ohm_per_km=feeder.r_ohm[j],
            x_ohm_per_km=feeder.x_ohm[j],
            c_nf_per_km=0.0,
            max_i_ka=min(feeder.i_max_a[j] / 1e3, 99.0),
            max_loading_percent=100.0,
        )
    pandapower.create_ext_grid(net, 0, vm_pu=feeder.v_source_pu)
    return net


class PandapowerFlow:
    """`pandapower.runpp` with Newton's method and numba, its defaults otherwise, one net after the other."""

    def __init__(self, feeder: Feeder) -> None:
        self.net = pandapower_net(feeder)

    def __call__(self, p_kw: np.ndarray, q_kvar: np.ndarray) -> np.ndarray:
        """Voltage magnitudes in p.u. [row, bus] for injections [row, bus]."""
        return np.stack([self._one(p, q) for p, q in zip(p_kw, q_kvar, strict=True)])

    def _one(self, p_kw: np.ndarray, q_kvar: np.ndarray) -> np.ndarray:
        self.net.load["p_mw"], self.net.load["q_mvar"] = -p_kw / 1e3, -q_kvar / 1e3
        pandapower.runpp(self.net, tolerance_mva=TOLERANCE, numba=True, lightsim2grid=False)
        return self.net.res_bus.vm_pu.to_numpy()


class LightsimFlow:
    """lightsim2grid's grid model, one power flow after the other (Newton's method, KLU)."""

    def __init__(self, feeder: Feeder) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.grid = init_from_pandapower(pandapower_net(feeder))
        self.flat = np.full(feeder.n_bus, complex(feeder.v_source_pu))
        self.every = np.ones(feeder.n_bus, dtype=bool)

    def __call__(self, p_kw: np.ndarray, q_kvar: np.ndarray) -> np.ndarray:
        """Voltage magnitudes in p.u. [row, bus] for injections [row, bus]."""
        return np.stack([self._one(p, q) for p, q in zip(p_kw, q_kvar, strict=True)])

    def _one(self, p_kw: np.ndarray, q_kvar: np.ndarray) -> np.ndarray:
        self.grid.update_loads_p(self.every, (-p_kw / 1e3).astype(np.float32))
        self.grid.update_loads_q(self.every, (-q_kvar / 1e3).astype(np.float32))
        return np.abs(self.grid.ac_pf(self.flat.copy(), ITERATIONS, TOLERANCE))


class LightsimSweep(LightsimFlow):
    """lightsim2grid's batch of independent power flows (Newton's method, KLU)."""

    def __call__(self, p_kw: np.ndarray, q_kvar: np.ndarray) -> np.ndarray:
        """Voltage magnitudes in p.u. [row, bus] for injections [row, bus]."""
        sweep = InjectionSweepCPP(self.grid)
        sweep.modify_load_p(np.ascontiguousarray(-p_kw / 1e3))
        sweep.modify_load_q(np.ascontiguousarray(-q_kvar / 1e3))
        sweep.compute(self.flat.copy(), ITERATIONS, TOLERANCE)
        return np.abs(sweep.get_voltages())


class PowerGridModelFlow:
    """power-grid-model's batch, Newton's method."""

    def __init__(self, feeder: Feeder) -> None:
        n, given = feeder.n_bus, pgm.DatasetType.input
        node = pgm.initialize_array(given, pgm.ComponentType.node, n)
        node["id"], node["u_rated"] = np.arange(n), feeder.base_kv * 1e3
        line = pgm.initialize_array(given, pgm.ComponentType.line, n - 1)
        line["id"], line["from_node"], line["to_node"] = n + np.arange(n - 1), feeder.parent[1:], np.arange(1, n)
        line["from_status"] = line["to_status"] = 1
        line["r1"], line["x1"], line["c1"], line["tan1"] = feeder.r_ohm[1:], feeder.x_ohm[1:], 0.0, 0.0
        load = pgm.initialize_array(given, pgm.ComponentType.sym_load, n)
        load["id"], load["node"], load["status"] = 2 * n + np.arange(n), np.arange(n), 1
        load["type"] = pgm.LoadGenType.const_power
        load["p_specified"], load["q_specified"] = feeder.load_kw * 1e3, feeder.load_kvar * 1e3
        source = pgm.initialize_array(given, pgm.ComponentType.source, 1)
        source["id"], source["node"], source["status"], source["u_ref"] = 3 * n, 0, 1, feeder.v_source_pu
        source["sk"] = 1e20  # a stiff source: its own impedance can't be left out
        self.load_id = load["id"]
        self.model = pgm.PowerGridModel({"node": node, "line": line, "sym_load": load, "source": source})

    def __call__(self, p_kw: np.ndarray, q_kvar: np.ndarray) -> np.ndarray:
        """Voltage magnitudes in p.u. [row, bus] for injections [row, bus]."""
        load = pgm.initialize_array(pgm.DatasetType.update, pgm.ComponentType.sym_load, p_kw.shape)
        load["id"], load["p_specified"], load["q_specified"] = self.load_id, -p_kw * 1e3, -q_kvar * 1e3
        found = self.model.calculate_power_flow(
            update_data={"sym_load": load},
            calculation_method=pgm.CalculationMethod.newton_raphson,
            error_tolerance=TOLERANCE,
            max_iterations=ITERATIONS,
            threading=-1,
            output_component_types=["node"],
        )
        return found["node"]["u_pu"]


class PandapowerOpf:
    """`pandapower.runopp`: the AC optimal power flow itself, by the interior-point method of PYPOWER.

    It knows no load shedding at constant power factor, so shedding is left out here.
    """

    def __init__(self, dso: OpfDso) -> None:
        self.n_generator, self.n_trade = len(dso.generators.bus), len(dso.trade_bus)
        self.net = net = pandapower_net(dso.feeder)
        pandapower.create_poly_cost(net, 0, "ext_grid", cp1_eur_per_mw=0.0)
        for bus in (*dso.generators.bus, *dso.trade_bus):
            index = pandapower.create_sgen(
                net, bus, 0.0, min_p_mw=0.0, max_p_mw=0.0, min_q_mvar=0.0, max_q_mvar=0.0, controllable=True
            )
            pandapower.create_poly_cost(net, index, "sgen", cp1_eur_per_mw=0.0, cp2_eur_per_mw2=0.0)

    def __call__(self, problem: OpfProblem) -> Answer:
        net, injections = self.net, problem.injections
        devices = np.arange(len(injections.bus))
        own = np.concatenate([devices[1 : 1 + self.n_generator], devices[len(devices) - self.n_trade :]])
        linear = injections.linear_per_kwh - 2.0 * injections.quadratic_per_kw2h * injections.reference_kw
        net.load["p_mw"], net.load["q_mvar"] = problem.load_kw / 1e3, problem.load_kvar / 1e3
        for column, values in (
            ("min_p_mw", injections.p_min_kw),
            ("max_p_mw", injections.p_max_kw),
            ("min_q_mvar", injections.q_min_kvar),
            ("max_q_mvar", injections.q_max_kvar),
        ):
            net.sgen[column] = values[own] / 1e3
        net.poly_cost["cp1_eur_per_mw"] = linear[np.concatenate([[0], own])] * 1e3
        net.poly_cost["cp2_eur_per_mw2"] = injections.quadratic_per_kw2h[np.concatenate([[0], own])] * 1e6
        p_kw = np.zeros(len(devices))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                pandapower.runopp(net)
        except OPFNotConverged:
            return Answer(problem, p_kw, OpfStatus.INACCURATE)
        p_kw[0], p_kw[own] = net.res_ext_grid.p_mw.iloc[0] * 1e3, net.res_sgen.p_mw.to_numpy() * 1e3
        return Answer(problem, p_kw, OpfStatus.OPTIMAL)
