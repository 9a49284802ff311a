"""The reference solver against hand calculations, other solvers' answers, and the optimality conditions."""

import copy
import pickle
from dataclasses import fields, replace

import numpy as np
import pytest
from scipy.optimize import minimize

from peergrid.grid import feeder_from_tables, load_feeder
from peergrid.grid.dso import DsoQuery, Generators, OpfDso, Penalty
from peergrid.grid.errors import InvalidQuery
from peergrid.grid.opf import OpfStatus, UpperVoltage
from peergrid.grid.opf.conic import ConicOpf
from peergrid.grid.opf.problem import flowing_pu2, relaxation_gap

LMP = 0.1


def two_buses(x_ohm=0.0, load_kvar=0.0, v_min_pu=0.5, v_max_pu=1.5, v_source_pu=1.0, i_max_a=""):
    """1 kV and 0.1 ohm to a load of 1000 kW: in p.u. of the load r is 0.1."""
    bus = dict(base_kv=1.0, load_kw=0.0, load_kvar=0.0, capacitor_kvar=0.0, v_min_pu=v_min_pu, v_max_pu=v_max_pu)
    return feeder_from_tables(
        [{"bus": "1", **bus}, {"bus": "2", **bus, "load_kw": 1000.0, "load_kvar": load_kvar}],
        [{"from_bus": "1", "to_bus": "2", "r_ohm": 0.1, "x_ohm": x_ohm, "i_max_a": i_max_a}],
        name="two buses",
        substation="1",
        v_source_pu=v_source_pu,
    )


def ieee33(**limits):
    feeder = load_feeder("ieee33")
    limits = {"v_min_pu": 0.95, "v_max_pu": 1.05, "i_max_a": 400.0} | limits
    return replace(feeder, **{name: np.full(feeder.n_bus, limit) for name, limit in limits.items()})


def four_microgrids(**settings):
    """Microgrids at buses 17, 22, 25 and 32 of the 33-bus feeder, and a generator at 18."""
    feeder = ieee33()
    generators = Generators(
        bus=(feeder.index(18),),
        p_min_kw=np.array([0.0]),
        p_max_kw=np.array([1500.0]),
        q_min_kvar=np.array([-540.0]),
        q_max_kvar=np.array([540.0]),
        a_per_kw2h=np.array([5e-5]),
        b_per_kwh=np.array([0.12]),
    )
    settings = {"generators": generators} | settings
    return OpfDso(feeder, [feeder.index(b) for b in (17, 22, 25, 32)], **settings)


def problem_of(dso, proposed_kw, load_share=0.6, **more):
    feeder, proposed_kw = dso.feeder, np.asarray(proposed_kw, dtype=float)
    share = np.broadcast_to(np.asarray(load_share, dtype=float), proposed_kw.shape[:-1])[..., None]
    load = {"load_kw": share * feeder.load_kw, "load_kvar": share * feeder.load_kvar}
    return dso.problem(DsoQuery(proposed_kw=proposed_kw, **({**load, "lmp_per_kwh": LMP} | more)))


def solver_of(dso, upper_voltage=UpperVoltage.LOSSLESS):
    problem = problem_of(dso, np.zeros(len(dso.trade_bus)))
    has_free_q = np.arange(len(problem.injections.bus)) <= len(dso.generators.bus)
    return ConicOpf(dso.feeder, problem.injections.bus, has_free_q, upper_voltage)


def solve(dso, proposed_kw, **more):
    problem = problem_of(dso, proposed_kw, **more)
    return problem, solver_of(dso)(problem)


def assert_same(one, other):
    for f in fields(one):
        np.testing.assert_array_equal(getattr(one, f.name), getattr(other, f.name), err_msg=f.name)


def test_two_buses_match_the_hand_calculation():
    # P = 1 + 0.1 P^2 at the sending end, so P = (1 - sqrt(0.6)) / 0.2; one more kW drawn takes 1 / (1 - 0.2 P) more.
    p = (1.0 - np.sqrt(0.6)) / 0.2
    problem, solution = solve(OpfDso(two_buses(), []), [], load_share=1.0)
    assert solution.status == OpfStatus.OPTIMAL
    np.testing.assert_allclose(solution.flow_kw[1], 1000.0 * p, rtol=1e-7)
    np.testing.assert_allclose(solution.p_kw[0], 1000.0 * p, rtol=1e-7)
    np.testing.assert_allclose(solution.voltage_pu[1], 1.0 - 0.1 * p, rtol=1e-7)
    np.testing.assert_allclose(solution.price_per_kwh, [LMP, LMP / np.sqrt(0.6)], rtol=1e-6)
    np.testing.assert_allclose(solution.cost_per_hour, LMP * 1000.0 * p, rtol=1e-7)
    np.testing.assert_allclose(solution.cost_per_hour, problem.injections.cost(solution.p_kw), rtol=1e-12)


def test_two_buses_agree_with_a_general_solver_on_the_ac_equations():
    # An import of 400 kW on top of a load of 800 + j400 kVA: at 0.9 p.u. part of each must go.
    feeder = two_buses(x_ohm=0.05, load_kvar=500.0, v_min_pu=0.9)
    penalty = Penalty(kappa_per_kwh=0.05, lambda_corr_per_kw2h=0.001, voll_per_kwh=0.9, c_ls_per_kw2h=1e-4)
    _, solution = solve(OpfDso(feeder, [1], penalty=penalty), [-400.0], load_share=0.8)
    s, r, x, tan_phi = feeder.base_kva, feeder.r_pu[1], feeder.x_pu[1], 0.5

    # Variables: accepted, shed, active and reactive sending-end flow, in p.u. of s.
    def balance(y):
        a, shed, p, q = y
        loss = p**2 + q**2
        load = 800.0 / s - shed
        return [p - r * loss + a - load, q - x * loss - tan_phi * load]

    def voltage_above_least(y):
        _, _, p, q = y
        return 1.0 - 2.0 * (r * p + x * q) + (r**2 + x**2) * (p**2 + q**2) - 0.9**2

    def cost(y):
        a, shed, p, _ = y
        away = s * a + 400.0
        trade = LMP * away + 0.05 * abs(away) + 0.001 * away**2
        return (LMP * s * p + 0.9 * s * shed + 1e-4 * (s * shed) ** 2 + trade) / 100.0

    best = minimize(
        cost,
        x0=np.array([-0.2, 0.1, 1.0, 0.4]),
        bounds=[(-400.0 / s, 0.0), (0.0, 800.0 / s), (-5.0, 5.0), (-5.0, 5.0)],
        constraints=[{"type": "eq", "fun": balance}, {"type": "ineq", "fun": voltage_above_least}],
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert best.success, best.message
    accepted, shed = solution.p_kw[2], solution.p_kw[1]
    assert -399.0 < accepted < -1.0
    assert 1.0 < shed < 799.0
    np.testing.assert_allclose([accepted, shed], s * best.x[:2], atol=1e-2)
    np.testing.assert_allclose(solution.cost_per_hour, 100.0 * best.fun, rtol=1e-7)


@pytest.mark.parametrize(
    ("proposed_kw", "load_share", "binds"),
    [
        ([30.0, -20.0, 10.0, -40.0], 0.6, ""),
        ([-900.0, 300.0, -500.0, -900.0], 0.8, "v_min"),
        ([900.0, 0.0, 0.0, 900.0], 0.3, "v_max"),
        ([0.0, 0.0, 1600.0, 0.0], 0.4, "i_max"),
    ],
)
def test_no_injection_is_better_moved(proposed_kw, load_share, binds):
    # Karush-Kuhn-Tucker: a reduced cost is 0 inside the bounds, not negative at the lower, not positive at the upper.
    dso = four_microgrids()
    i_max_a = np.full(33, 400.0)
    i_max_a[dso.feeder.index(25)] = 50.0
    problem, solution = solve(dso, proposed_kw, load_share=load_share, i_max_a=i_max_a)
    assert solution.status == OpfStatus.OPTIMAL
    assert relaxation_gap(dso.feeder, solution) < 1e-6
    injections, at = problem.injections, problem.injections.bus
    price, reactive_price = solution.price_per_kwh[at], solution.reactive_price_per_kvarh[at]
    marginal = injections.linear_per_kwh + 2 * injections.quadratic_per_kw2h * (solution.p_kw - injections.reference_kw)
    reduced = marginal - price - injections.tan_phi * reactive_price
    can_fall, can_rise = solution.p_kw > injections.p_min_kw + 1e-2, solution.p_kw < injections.p_max_kw - 1e-2
    assert (reduced[can_fall] <= 1e-5).all()
    assert (reduced[can_rise] >= -1e-5).all()
    free = injections.q_max_kvar > injections.q_min_kvar
    can_fall, can_rise = solution.q_kvar > injections.q_min_kvar + 1e-2, solution.q_kvar < injections.q_max_kvar - 1e-2
    assert (reactive_price[free & can_fall] >= -1e-5).all()
    assert (reactive_price[free & can_rise] <= 1e-5).all()

    slack = {
        "v_min": solution.voltage_pu - problem.v_min_pu,
        "i_max": 1.0 - np.sqrt(flowing_pu2(dso.feeder, solution)) * dso.feeder.base_a / problem.i_max_a,
        "v_max": problem.v_max_pu - solution.voltage_pu,
    }
    for name, room in slack.items():
        multiplier = getattr(solution, f"{name}_multiplier")
        if name == "i_max":
            multiplier = multiplier + solution.i_max_lossless_multiplier
        assert (multiplier >= 0).all()
        assert (room[1:] > -1e-7).all(), name
        # Lossless voltages and flows reach their limits a little before the true ones do.
        assert (multiplier[room > (1e-4 if name == "v_min" else 1e-2)] < 1e-3).all(), name
        assert (multiplier > 1e-2).any() == (name == binds), name


def test_only_the_lossless_upper_voltage_is_tight_when_exports_raise_the_voltage():
    dso = four_microgrids(generators=Generators())
    problem = problem_of(dso, [900.0, 0.0, 0.0, 900.0], load_share=0.1)
    lossless, plain = (solver_of(dso, upper_voltage)(problem) for upper_voltage in UpperVoltage)
    assert lossless.status == plain.status == OpfStatus.OPTIMAL
    assert relaxation_gap(dso.feeder, lossless) < 1e-8
    assert relaxation_gap(dso.feeder, plain) > 1e-2
    # Plain burns what lossless curtails.
    assert plain.p_kw[-4:].sum() > lossless.p_kw[-4:].sum() + 100.0
    assert (lossless.v_max_multiplier > 1e-2).any()
    assert lossless.voltage_pu.max() <= 1.05
    # Conservative, but not by much.
    assert lossless.voltage_pu.max() > 1.045


def test_lossless_and_plain_agree_where_the_upper_voltage_does_not_bind():
    dso = four_microgrids(generators=Generators())
    problem = problem_of(dso, [-400.0, 300.0, -100.0, -400.0], load_share=0.4)
    lossless, plain = (solver_of(dso, upper_voltage)(problem) for upper_voltage in UpperVoltage)
    assert (lossless.v_min_multiplier > 1e-2).any()
    np.testing.assert_allclose(lossless.p_kw, plain.p_kw, atol=1e-2)
    np.testing.assert_allclose(lossless.price_per_kwh, plain.price_per_kwh, atol=1e-5)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0,)])
def test_a_batch_of_any_shape_equals_one_by_one(shape):
    dso = four_microgrids()
    rng = np.random.default_rng(0)
    proposed_kw = rng.uniform(-300.0, 300.0, (*shape, 4))
    problem = problem_of(dso, proposed_kw, load_share=rng.uniform(0.3, 0.9, shape))
    solver = solver_of(dso)
    together = solver(problem)
    assert together.p_kw.shape == (*shape, len(problem.injections.bus))
    assert together.status.shape == shape
    for index in np.ndindex(shape):
        load = {"load_kw": problem.load_kw[index], "load_kvar": problem.load_kvar[index]}
        alone = solver(problem_of(dso, proposed_kw[index], **load))
        for f in fields(alone):
            if f.name != "te_signal_per_kwh":  # None of a central solver
                np.testing.assert_array_equal(getattr(together, f.name)[index], getattr(alone, f.name), err_msg=f.name)


def test_an_answer_does_not_depend_on_what_was_solved_before():
    dso = four_microgrids()
    problem = problem_of(dso, [30.0, -20.0, 10.0, -40.0])
    fresh, used = solver_of(dso), solver_of(dso)
    used(problem_of(dso, [900.0, 0.0, 0.0, 900.0], load_share=0.3))
    used(problem_of(dso, [0.0] * 4, v_min_pu=np.full(33, 1.01)))
    assert_same(used(problem), fresh(problem))
    assert_same(used(problem), fresh(problem))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda solver: pickle.loads(pickle.dumps(solver))])
def test_a_copy_of_a_used_solver_answers_alike(duplicate):
    dso = four_microgrids()
    problem = problem_of(dso, [300.0, -200.0, 100.0, -400.0])
    solver = solver_of(dso)
    before = solver(problem)
    assert_same(duplicate(solver)(problem), before)
    assert_same(solver(problem), before)


def test_a_source_below_the_least_voltage_is_infeasible_whatever_is_shed():
    _, solution = solve(OpfDso(two_buses(v_source_pu=0.9, v_min_pu=0.95), [1]), [0.0])
    assert solution.status == OpfStatus.INFEASIBLE
    found = [getattr(solution, f.name) for f in fields(solution)]
    assert all(np.isfinite(values).all() for values in found if values is not None)
    assert (solution.p_kw == 0).all()


def test_an_infinite_rating_in_a_query_lifts_the_limit():
    dso = four_microgrids()
    _, rated = solve(dso, [30.0, -20.0, 10.0, -40.0])
    _, unrated = solve(dso, [30.0, -20.0, 10.0, -40.0], i_max_a=np.full(33, np.inf))
    np.testing.assert_allclose(rated.p_kw, unrated.p_kw, atol=1e-3)
    assert (unrated.i_max_multiplier < 1e-4).all()


def test_a_capacitor_does_as_much_as_reactive_load_taken_away():
    feeder = two_buses(x_ohm=0.1, load_kvar=500.0)
    with_capacitor = replace(feeder, capacitor_kvar=np.array([0.0, 200.0]))
    _, helped = solve(OpfDso(with_capacitor, []), [], load_share=0.5)
    _, lighter = solve(OpfDso(feeder, []), [], load_kw=np.array([0.0, 500.0]), load_kvar=np.array([0.0, 50.0]))
    np.testing.assert_allclose(helped.voltage_pu, lighter.voltage_pu, atol=1e-9)
    np.testing.assert_allclose(helped.price_per_kwh, lighter.price_per_kwh, atol=1e-6)


def test_every_fault_of_a_problem_is_named_at_once():
    problem = problem_of(four_microgrids(), [0.0] * 4)
    injections = problem.injections
    with pytest.raises(InvalidQuery) as raised:
        replace(
            problem,
            load_kw=np.full(33, np.nan),
            v_min_pu=problem.v_max_pu + 0.1,
            i_max_a=np.full(33, -1.0),
            injections=replace(
                injections, p_min_kw=injections.p_max_kw + 1.0, quadratic_per_kw2h=-np.ones(len(injections.bus))
            ),
        )
    for fault in (
        "load_kw is not finite",
        "v_min_pu is above v_max_pu",
        "i_max_a is not positive",
        "p_min_kw is above p_max_kw",
        "quadratic_per_kw2h is negative",
        "and 28 more",
    ):
        assert fault in str(raised.value)
