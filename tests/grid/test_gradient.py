"""Gradients of the optimal power flow against central differences, away from kinks."""

from dataclasses import fields, replace

import numpy as np
import pytest

from peergrid.grid import load_feeder
from peergrid.grid.dso import DsoQuery, Generators, OpfDso, Penalty
from peergrid.grid.dso.gradient import ResponseGradient, respond_with_gradient
from peergrid.grid.errors import InvalidQuery
from peergrid.grid.opf.gradient import SolutionGradient, solve_with_gradient
from peergrid.grid.opf.problem import OF_INJECTIONS

N = 60
# By how much each number is moved: enough to be seen above the solver's tolerance, little enough to stay straight.
STEPS = {
    "load_kw": 1e-2,
    "load_kvar": 1e-2,
    "proposed_kw": 1e-2,
    "lmp_per_kwh": 1e-5,
    "v_source_pu": 1e-6,
    "v_min_pu": 1e-6,
    "v_max_pu": 1e-6,
    "i_max_a": 3e-1,
    "p_min_kw": 1e-1,
    "p_max_kw": 1e-1,
    "linear_per_kwh": 1e-5,
    "quadratic_per_kw2h": 1e-7,
    "reference_kw": 1e-1,
    "tan_phi": 1e-5,
    "q_min_kvar": 1e-1,
    "q_max_kvar": 1e-1,
}


def operator(upper_voltage):
    feeder = load_feeder("ieee33")
    feeder = replace(feeder, i_max_a=np.full(33, 180.0))
    generators = Generators(
        bus=(18,),
        p_min_kw=np.zeros(1),
        p_max_kw=np.full(1, 1500.0),
        q_min_kvar=np.full(1, -200.0),
        q_max_kvar=np.full(1, 200.0),
        a_per_kw2h=np.full(1, 5e-5),
        b_per_kwh=np.full(1, 0.12),
    )
    # Shedding costs more the more of it there is, so that no bus is shed to the last.
    penalty = Penalty(c_ls_per_kw2h=1.0)
    places = [feeder.index(name) for name in ("17", "22", "25", "32")]
    return OpfDso(feeder, places, generators=generators, penalty=penalty, upper_voltage=upper_voltage)


def queries(dso, seed=0):
    rng = np.random.default_rng(seed)
    share = rng.uniform(0.4, 1.1, (N, 1)) * rng.uniform(0.8, 1.2, (N, 33))
    return DsoQuery(
        load_kw=share * dso.feeder.load_kw,
        load_kvar=share * dso.feeder.load_kvar,
        proposed_kw=rng.uniform(-1500.0, 1500.0, (N, 4)),
        lmp_per_kwh=rng.uniform(0.05, 0.2, N),
        v_min_pu=np.full((N, 33), 0.95),
        v_max_pu=np.full((N, 33), 1.03),
        i_max_a=rng.uniform(0.6, 1.2, (N, 1)) * dso.feeder.i_max_a,
    )


def compare(loss, at, moved, gradient, direction, step):
    """Relative errors of directional derivatives where they are large enough and no kink is near; and how many."""
    ahead, behind = loss(moved(step * direction)), loss(moved(-step * direction))
    difference = ahead - behind
    straight = np.abs(ahead + behind - 2.0 * at) < 3e-3 * np.abs(difference)
    seen = straight & (np.abs(difference) > 1e-4)
    by_gradient = 2.0 * step * (gradient * direction).reshape(len(at), -1).sum(axis=-1)
    return np.abs(by_gradient / np.where(seen, difference, 1.0) - 1.0)[seen]


@pytest.mark.parametrize("upper_voltage", ["lossless", "plain"])
def test_gradients_of_every_number_of_a_problem_are_those_of_central_differences(upper_voltage):
    dso, rng = operator(upper_voltage), np.random.default_rng(1)
    problem = dso.problem(queries(dso))
    solution, pull_back = solve_with_gradient(dso.solver, problem)
    weights = {
        "p_kw": rng.normal(size=solution.p_kw.shape),
        "q_kvar": rng.normal(size=solution.q_kvar.shape),
        "flow_kw": rng.normal(size=solution.flow_kw.shape),
        "flow_kvar": rng.normal(size=solution.flow_kw.shape),
        "current_pu2": rng.normal(size=solution.flow_kw.shape) * 1e2,
        "voltage_pu": rng.normal(size=solution.flow_kw.shape) * 1e3,
        "price_per_kwh": rng.normal(size=solution.flow_kw.shape) * 1e2,
        "reactive_price_per_kvarh": rng.normal(size=solution.flow_kw.shape) * 1e2,
    }

    def loss(found):
        return sum((getattr(found, name) * weight).sum(axis=-1) for name, weight in weights.items())

    gradient = pull_back(SolutionGradient(**weights))
    for f in fields(gradient):
        name, injections = f.name, problem.injections
        values = getattr(injections if name in OF_INJECTIONS else problem, name)
        direction = rng.normal(size=values.shape)
        for start, end in (("p_min_kw", "p_max_kw"), ("q_min_kvar", "q_max_kvar")):
            if name in (start, end):  # the bounds of a fixed injection don't move one by one
                direction = np.where(getattr(injections, end) - getattr(injections, start) > 1.0, direction, 0.0)
        if name == "quadratic_per_kw2h":
            direction = np.where(values > 0, direction, 0.0)

        def moved(by, name=name, values=values):
            changed = {name: values + by}
            if name in OF_INJECTIONS:
                changed = {"injections": replace(problem.injections, **changed)}
            return dso.solver(replace(problem, **changed))

        errors = compare(loss, loss(solution), moved, getattr(gradient, name), direction, STEPS[name])
        assert len(errors) >= 5, name
        assert np.median(errors) < 1e-4, name


def test_gradients_of_a_query_are_those_of_central_differences():
    dso, rng = operator("lossless"), np.random.default_rng(2)
    asked = queries(dso)
    response, pull_back = respond_with_gradient(dso, asked)
    weights = {
        name: rng.normal(size=getattr(response, name).shape) * scale
        for name, scale in (
            ("accepted_kw", 1.0),
            ("shed_kw", 1.0),
            ("generator_kw", 1.0),
            ("generator_kvar", 1.0),
            ("substation_kw", 1.0),
            ("substation_kvar", 1.0),
            ("voltage_pu", 1e3),
            ("flow_kw", 1.0),
            ("flow_kvar", 1.0),
            ("price_per_kwh", 1e2),
            ("reactive_price_per_kvarh", 1e2),
        )
    }

    def loss(found):
        return sum((getattr(found, name) * weight).reshape(N, -1).sum(axis=-1) for name, weight in weights.items())

    gradient = pull_back(ResponseGradient(**weights))
    for f in fields(gradient):
        values = getattr(asked, f.name)
        direction = rng.normal(size=values.shape)

        def moved(by, name=f.name, values=values):
            return dso(replace(asked, **{name: values + by}))

        errors = compare(loss, loss(response), moved, getattr(gradient, f.name), direction, STEPS[f.name])
        assert len(errors) >= 5, f.name
        assert np.median(errors) < 1e-4, f.name


def test_curtailment_counted_from_a_first_proposal_does_not_move_with_the_second():
    dso = operator("lossless")
    asked = queries(dso)
    ones = ResponseGradient(accepted_kw=np.ones((N, 4)))
    (_, once), (response, again) = (
        respond_with_gradient(dso, replace(asked, first_proposed_kw=first)) for first in (None, 1.5 * asked.proposed_kw)
    )
    curtailed = np.abs(response.accepted_kw) < np.abs(asked.proposed_kw) - 1.0
    assert curtailed.any()
    assert np.abs(once(ones).proposed_kw[curtailed]).max() > 0.1
    np.testing.assert_allclose(again(ones).proposed_kw[curtailed], 0.0, atol=1e-3)


def test_problems_without_an_answer_have_gradients_of_zero_and_leave_the_others_alone():
    dso = operator("lossless")
    asked = queries(dso)
    impossible = np.arange(N) % 3 == 0
    v_min_pu = np.where(impossible[:, None], 1.02, asked.v_min_pu)
    ones = ResponseGradient(price_per_kwh=np.ones((N, 33)), accepted_kw=np.ones((N, 4)))
    response, pull_back = respond_with_gradient(dso, replace(asked, v_min_pu=v_min_pu))
    np.testing.assert_array_equal(response.status > 0, impossible)
    found, alone = pull_back(ones), respond_with_gradient(dso, asked)[1](ones)
    for f in fields(found):
        values = getattr(found, f.name)
        assert (values[impossible] == 0).all(), f.name
        np.testing.assert_allclose(values[~impossible], getattr(alone, f.name)[~impossible], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(), (2, 3), (0,)])
def test_gradients_have_the_shape_of_the_query(shape):
    dso = operator("plain")
    asked = queries(dso)
    chosen = {f.name: getattr(asked, f.name) for f in fields(asked) if isinstance(getattr(asked, f.name), np.ndarray)}
    n = int(np.prod(shape))
    few = replace(asked, **{name: np.reshape(v[:n], (*shape, *v.shape[1:])) for name, v in chosen.items()})
    _, pull_back = respond_with_gradient(dso, few)
    found = pull_back(ResponseGradient(price_per_kwh=np.ones((*shape, 33))))
    for name in ("load_kw", "load_kvar", "proposed_kw", "lmp_per_kwh", "v_min_pu", "v_max_pu", "i_max_a"):
        assert getattr(found, name).shape == (*shape, *chosen[name].shape[1:]), name
        assert np.isfinite(getattr(found, name)).all()


def test_a_solver_without_gradients_is_refused_by_name():
    dso = OpfDso(load_feeder("ieee33"), [17], solver="conic")
    asked = DsoQuery(
        load_kw=dso.feeder.load_kw, load_kvar=dso.feeder.load_kvar, proposed_kw=np.zeros(1), lmp_per_kwh=0.1
    )
    with pytest.raises(InvalidQuery, match="'interior_point'; this DSO's is ConicOpf"):
        respond_with_gradient(dso, asked)
