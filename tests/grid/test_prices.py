"""Nodal prices against differences of the cost and of the AC power flow; their signs; the transactive signal."""

from dataclasses import fields, replace
from functools import cache

import numpy as np
import pytest

from peergrid.grid import feeder_from_tables, load_feeder, prices, solve_power_flow
from peergrid.grid.dso import DsoQuery, DsoStatus, Generators, OpfDso, Penalty, dispatch_power_flow
from peergrid.grid.opf import OpfSolution, UpperVoltage
from peergrid.grid.opf.problem import ANSWERED_OF_BUSES, ANSWERED_OF_DEVICES
from peergrid.grid.prices import price_parts, te_price_per_kwh

LMP = 0.1
SEED = {"ieee33": 0, "ieee69": 0, "ieee123": 0}
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


def two_buses(r_ohm):
    """1 kV and a load of 1000 kW: in p.u. of the load r is r_ohm."""
    bus = dict(base_kv=1.0, load_kw=0.0, load_kvar=0.0, capacitor_kvar=0.0, v_min_pu=0.5, v_max_pu=1.5)
    return feeder_from_tables(
        [{"bus": "1", **bus}, {"bus": "2", **bus, "load_kw": 1000.0}],
        [{"from_bus": "1", "to_bus": "2", "r_ohm": r_ohm, "x_ohm": 0.0, "i_max_a": ""}],
        name="two buses",
        substation="1",
    )


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
    feeder = two_buses(r_ohm=0.1)
    dso = OpfDso(feeder, [])
    response = dso(
        DsoQuery(load_kw=feeder.load_kw, load_kvar=feeder.load_kvar, proposed_kw=np.zeros(0), lmp_per_kwh=LMP)
    )
    np.testing.assert_allclose(response.price_per_kwh, [LMP, LMP / np.sqrt(0.6)], rtol=1e-5)
    np.testing.assert_allclose(response.price_parts.loss, [0.0, LMP / np.sqrt(0.6) - LMP], atol=1e-6)


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
    physics = dispatch_power_flow(dso.layout, dso(asked), dso.problem(asked))
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
            np.testing.assert_allclose(
                getattr(together, f.name)[row], getattr(alone, f.name), atol=1e-6, err_msg=f.name
            )


def dense_price_parts(feeder, solution, upper_voltage):
    """The same parts by path matrices and one dense solve per row, in O(n^3): the formula written out."""
    r, x = feeder.r_pu[1:], feeder.x_pu[1:]
    on_path = feeder.on_path[1:, 1:].astype(float)
    fed = on_path.T  # row j marks the buses fed through line j
    # Squared voltages by withdrawals and, at fixed withdrawals, by squared currents.
    v_by_d = -2.0 * (on_path * r) @ fed
    v_by_l = -on_path @ (2.0 * (r[:, None] * fed * r + x[:, None] * fed * x) - np.diag(r**2 + x**2))

    def at_parent(rows: np.ndarray) -> np.ndarray:
        return np.concatenate([np.zeros_like(rows[:1]), rows])[feeder.parent[1:]]

    def times(rows: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        # Row by row: the last bits of a product of many rows at once depend on how many there are.
        return (rows[..., None, :] @ matrix)[..., 0, :]

    s = feeder.base_kva
    p, q = solution.flow_kw[..., 1:, None] / s, solution.flow_kvar[..., 1:, None] / s
    l = solution.current_pu2[..., 1:, None]  # noqa: E741
    v_from = solution.voltage_pu[..., feeder.parent[1:]] ** 2
    # l v_A = P^2 + Q^2 differentiated: by_l dl = by_d dd.
    by_l = v_from[..., None] * np.eye(len(r)) + l * at_parent(v_by_l) - 2.0 * (p * fed * r + q * fed * x)
    by_d = 2.0 * p * fed - l * at_parent(v_by_d)

    # Lossless flows, and the squared rating where it binds them; elsewhere its multiplier is zero.
    p_hat, q_hat = (flow[..., 0] - times(l[..., 0] * z, on_path) for flow, z in ((p, r), (q, x)))
    of_lossless = solution.i_max_lossless_multiplier[..., 1:] / s
    by_v_from = -of_lossless * (p_hat**2 + q_hat**2) / v_from

    lambda_0 = solution.price_per_kwh[..., :1]
    mu_0 = solution.reactive_price_per_kvarh[..., :1]
    v_min, v_max = -solution.v_min_multiplier[..., 1:] / s, solution.v_max_multiplier[..., 1:] / s
    lossless = upper_voltage is UpperVoltage.LOSSLESS
    of_true_voltage = v_min if lossless else v_min + v_max
    direct = times(v_min + v_max, v_by_d)
    direct_congestion = times(2.0 * of_lossless * p_hat, fed) + times(by_v_from, at_parent(v_by_d))
    by_current = np.stack(
        [
            lambda_0 * r,
            mu_0 * x,
            times(of_true_voltage, v_by_l),
            solution.i_max_multiplier[..., 1:] / s + times(by_v_from, at_parent(v_by_l)),
        ],
        axis=-1,
    )
    adjoint = np.linalg.solve(np.swapaxes(by_l, -1, -2), by_current)
    loss, reactive, voltage, congestion = np.moveaxis(np.swapaxes(by_d, -1, -2) @ adjoint, -1, 0)

    def with_root(part: np.ndarray) -> np.ndarray:
        return np.concatenate([np.zeros_like(part[..., :1]), part], axis=-1)

    return dict(
        energy=np.broadcast_to(lambda_0, solution.price_per_kwh.shape).copy(),
        loss=with_root(loss),
        reactive=with_root(reactive),
        voltage=with_root(voltage + direct),
        congestion=with_root(congestion + direct_congestion),
    )


@cache
def random_solution(name, upper_voltage):
    """Two by five random dispatches between which every kind of limit binds."""
    feeder = load_feeder(name)
    every = np.ones(feeder.n_bus)
    feeder = replace(feeder, v_min_pu=0.965 * every, v_max_pu=1.02 * every, i_max_a=400.0 * every)
    rng = np.random.default_rng(SEED[name])
    trade_bus = rng.choice(np.arange(1, feeder.n_bus), 6, replace=False)
    dso = OpfDso(feeder, trade_bus, upper_voltage=upper_voltage)
    batch = (2, 5)
    i_max_a = np.full((*batch, feeder.n_bus), 400.0)
    i_max_a[..., trade_bus[::2]] = 60.0
    load_share = rng.uniform(0.1, 1.0, (*batch, 1))
    asked = DsoQuery(
        load_kw=load_share * feeder.load_kw,
        load_kvar=load_share * feeder.load_kvar,
        proposed_kw=rng.uniform(-0.5, 0.5, (*batch, 6)) * feeder.base_kva,
        lmp_per_kwh=LMP,
        i_max_a=i_max_a,
    )
    return feeder, dso.solver(dso.problem(asked))


def figures(solution):
    """The arrays of a solution; only the distributed solver has signals."""
    return {f.name: a for f in fields(solution) if (a := getattr(solution, f.name)) is not None}


def rows_of(solution, index):
    return replace(solution, **{name: np.asarray(values[index]) for name, values in figures(solution).items()})


@pytest.mark.parametrize("upper_voltage", UpperVoltage)
@pytest.mark.parametrize("name", SEED)
def test_the_sweeps_give_what_the_dense_formula_gives(name, upper_voltage):
    feeder, solution = random_solution(name, upper_voltage)
    limits = ["v_min_multiplier", "v_max_multiplier", "i_max_multiplier"]
    limits += ["i_max_lossless_multiplier"] if upper_voltage is UpperVoltage.LOSSLESS else []
    for limit in limits:
        assert getattr(solution, limit)[..., 1:].max() > 1.0, limit
    parts = price_parts(feeder, solution, upper_voltage)
    for part, values in dense_price_parts(feeder, solution, upper_voltage).items():
        np.testing.assert_allclose(getattr(parts, part), values, rtol=1e-9, atol=1e-9, err_msg=part)


def some_solution(feeder, *batch, rng=None):
    """Figures of the right shapes, random or zero, with voltages of about 1."""
    names = (*ANSWERED_OF_DEVICES, *ANSWERED_OF_BUSES, "te_signal_per_kwh")
    shape = dict.fromkeys(names, (*batch, feeder.n_bus))
    shape |= dict.fromkeys(("cost_per_hour", "status", "iterations"), batch)
    drawn = {name: np.zeros(size) if rng is None else rng.normal(0.0, 1.0, size) for name, size in shape.items()}
    drawn |= {name: np.zeros(batch, dtype=int) for name in ("status", "iterations")}
    drawn["voltage_pu"] = np.ones(shape["voltage_pu"]) + 0.1 * np.tanh(drawn["voltage_pu"])
    return OpfSolution(**drawn)


@pytest.mark.parametrize("upper_voltage", UpperVoltage)
def test_the_sweeps_give_what_the_dense_formula_gives_for_figures_that_are_no_optimum(upper_voltage):
    feeder = load_feeder("ieee33")
    solution = some_solution(feeder, 20, rng=np.random.default_rng(0))
    solution = replace(solution, flow_kw=500.0 * solution.flow_kw, flow_kvar=500.0 * solution.flow_kvar)
    parts = price_parts(feeder, solution, upper_voltage)
    for part, values in dense_price_parts(feeder, solution, upper_voltage).items():
        np.testing.assert_allclose(getattr(parts, part), values, rtol=1e-9, atol=1e-9, err_msg=part)


def test_parts_of_rows_are_the_same_bits_whatever_the_batch_and_the_memory_layout():
    feeder, solution = random_solution("ieee33", UpperVoltage.LOSSLESS)
    together = price_parts(feeder, solution, UpperVoltage.LOSSLESS)
    laid_out = {name: np.asfortranarray(values) for name, values in figures(solution).items()}
    for values in laid_out.values():
        values.setflags(write=False)
    elsewhere = price_parts(feeder, replace(solution, **laid_out), UpperVoltage.LOSSLESS)
    for f in fields(together):
        values = getattr(together, f.name)
        assert values.shape == (2, 5, 33)
        np.testing.assert_array_equal(getattr(elsewhere, f.name), values, err_msg=f.name)
        for row in np.ndindex(2, 5):
            alone = price_parts(feeder, rows_of(solution, row), UpperVoltage.LOSSLESS)
            np.testing.assert_array_equal(getattr(alone, f.name), values[row], err_msg=f.name)


def test_one_compilation_serves_a_single_interval_a_batch_and_an_empty_batch():
    feeder, solution = random_solution("ieee33", UpperVoltage.LOSSLESS)
    first = rows_of(solution, (0, 0))
    values = figures(first).items()
    spread = replace(first, **{name: np.broadcast_to(value, (3, *value.shape)) for name, value in values})
    for upper_voltage in UpperVoltage:
        for asked in (solution, first, rows_of(solution, 0), spread):
            assert price_parts(feeder, asked, upper_voltage).total().shape == asked.flow_kw.shape
        nothing = price_parts(feeder, rows_of(solution, np.s_[:, :0]), upper_voltage)
        assert nothing.total().shape == (2, 0, 33)
    assert len(prices._parts_of_rows.signatures) == 1


def test_energy_alone_is_shown_where_the_power_flow_has_no_derivatives():
    # 2 r P = v: at the nose, where sending more delivers no more.
    feeder = two_buses(r_ohm=0.125)
    price_per_kwh, flow_kw = np.full((2, 2), LMP), np.array([[0.0, 4000.0], [0.0, 1000.0]])
    rows = replace(some_solution(feeder, 2), price_per_kwh=price_per_kwh, flow_kw=flow_kw)
    parts = price_parts(feeder, rows, UpperVoltage.LOSSLESS)
    np.testing.assert_array_equal(parts.total()[0], LMP)
    np.testing.assert_allclose(parts.total()[1], [LMP, LMP / 0.75])


@pytest.mark.parametrize("upper_voltage", UpperVoltage)
@pytest.mark.parametrize("scale", [1.0, 1e4, 1e60, 1e300])
def test_parts_are_finite_whatever_the_figures(scale, upper_voltage):
    feeder = load_feeder("ieee33")
    solution = some_solution(feeder, 50, rng=np.random.default_rng(1))
    names = (*ANSWERED_OF_DEVICES, *ANSWERED_OF_BUSES)
    scaled = {name: scale * getattr(solution, name) for name in names if name != "voltage_pu"}
    parts = price_parts(feeder, replace(solution, **scaled), upper_voltage)
    for f in fields(parts):
        assert np.isfinite(getattr(parts, f.name)).all(), f.name
