"""What the operator promises: bounds kept, energy balanced, failures said, the same answer for the same question."""

import copy
import pickle
import subprocess
import sys
from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest

from peergrid.grid import load_feeder, solve_power_flow
from peergrid.grid.dso import (
    Dso,
    DsoQuery,
    DsoStatus,
    Generators,
    OpfDso,
    Penalty,
    UncheckedDso,
    dispatch_power_flow,
)
from peergrid.grid.errors import InvalidQuery, UnknownName
from peergrid.grid.opf.conic import ConicOpf

LMP = 0.1
TRADE_BUSES = (17, 22, 25, 32)


def ieee33(**limits):
    feeder = load_feeder("ieee33")
    limits = {"v_min_pu": 0.95, "v_max_pu": 1.05, "i_max_a": 400.0} | limits
    return replace(feeder, **{name: np.full(feeder.n_bus, limit) for name, limit in limits.items()})


def generator(feeder, **changes):
    values = dict(p_min_kw=0.0, p_max_kw=1500.0, q_min_kvar=-540.0, q_max_kvar=540.0, a_per_kw2h=5e-5, b_per_kwh=0.12)
    return Generators(
        bus=(feeder.index(18),), **{name: np.array([value]) for name, value in (values | changes).items()}
    )


def operator(limits=None, **settings):
    """The operator of the 33-bus feeder with four microgrids, without a generator unless one is given."""
    feeder = ieee33(**(limits or {}))
    return OpfDso(feeder, [feeder.index(b) for b in TRADE_BUSES], **settings)


def query(dso, proposed_kw, load_share=0.6, **more):
    proposed_kw = np.asarray(proposed_kw, dtype=float)
    share = np.broadcast_to(np.asarray(load_share, dtype=float), proposed_kw.shape[:-1])[..., None]
    load = {"load_kw": share * dso.feeder.load_kw, "load_kvar": share * dso.feeder.load_kvar}
    return DsoQuery(proposed_kw=proposed_kw, **({**load, "lmp_per_kwh": LMP} | more))


def arrays(response):
    """Every figure of a response but the time that it took."""
    found = {f.name: getattr(response, f.name) for f in fields(response) if f.name != "solve_seconds"}
    found = {name: values for name, values in found.items() if values is not None}
    parts = found.pop("price_parts")
    return found | {f.name: getattr(parts, f.name) for f in fields(parts)}


def assert_same(one, other):
    for name, values in arrays(one).items():
        np.testing.assert_array_equal(values, arrays(other)[name], err_msg=name)


def assert_row(index, together, alone):
    """A batch agrees with its members to the tolerance of the solver: one alone is solved out of the lanes."""
    for name, values in arrays(together).items():
        # Where neighbours are both at a limit, how their multipliers share its price is the least certain.
        rtol = 2e-4 if name.endswith("multiplier") else 1e-5
        np.testing.assert_allclose(values[index], arrays(alone)[name], rtol=rtol, atol=1e-5, err_msg=name)


def assert_finite(response):
    assert all(np.isfinite(values).all() for values in arrays(response).values())


@pytest.fixture(scope="module")
def random_proposals():
    dso = operator(generators=generator(ieee33()))
    rng = np.random.default_rng(1)
    asked = query(dso, rng.uniform(-1000.0, 1000.0, (40, 4)), load_share=rng.uniform(0.3, 0.95, 40))
    return dso, asked, dso(asked)


def test_a_response_never_enlarges_or_reverses_a_proposal(random_proposals):
    _, asked, response = random_proposals
    assert (response.accepted_kw * np.sign(asked.proposed_kw) >= 0).all()
    assert (np.abs(response.accepted_kw) <= np.abs(asked.proposed_kw)).all()
    assert (response.shed_kw >= 0).all()
    assert (response.shed_kw <= asked.load_kw).all()


def test_the_ac_power_flow_confirms_voltages_currents_losses_and_limits(random_proposals):
    dso, asked, response = random_proposals
    np.testing.assert_array_equal(response.status, DsoStatus.OPTIMAL)
    physics = dispatch_power_flow(dso.layout, response, dso.problem(asked))
    np.testing.assert_allclose(response.voltage_pu, physics.voltage_pu, atol=1e-6)
    np.testing.assert_allclose(response.current_a, physics.current_a, atol=1e-3)
    np.testing.assert_allclose(response.losses_kw, physics.losses_kw, atol=1e-3)
    np.testing.assert_allclose(response.substation_kw, physics.substation_kw, atol=1e-2)
    np.testing.assert_allclose(response.flow_kw, physics.flow_kw, atol=1e-2)
    assert (physics.voltage_pu >= dso.feeder.v_min_pu - 1e-6).all()
    assert (physics.voltage_pu <= dso.feeder.v_max_pu + 1e-6).all()
    assert (physics.current_a <= dso.feeder.i_max_a * (1 + 1e-5)).all()


def test_energy_balances(random_proposals):
    _, asked, response = random_proposals
    supply = response.substation_kw + response.generator_kw.sum(-1) + response.accepted_kw.sum(-1)
    np.testing.assert_allclose(
        supply + response.shed_kw.sum(-1) - asked.load_kw.sum(-1) - response.losses_kw, 0.0, atol=1e-4
    )


def test_the_cost_is_that_of_energy_generation_shedding_and_curtailment(random_proposals):
    dso, asked, response = random_proposals
    cut_kw = np.abs(asked.proposed_kw - response.accepted_kw)
    trades = LMP * (response.accepted_kw - asked.proposed_kw) + 0.05 * cut_kw + 0.005 * cut_kw**2
    cost = LMP * response.substation_kw + dso.generators.cost_per_hour(response.generator_kw).sum(-1)
    cost = cost + trades.sum(-1) + 3.0 * response.shed_kw.sum(-1)
    np.testing.assert_allclose(response.cost_per_hour, cost, rtol=1e-7)


def test_where_nothing_binds_nothing_is_curtailed_or_shed():
    dso = operator({"v_min_pu": 0.8, "v_max_pu": 1.2})
    response = dso(query(dso, [[50.0, -50.0, 30.0, -30.0], [-90.0, -80.0, -90.0, -80.0]], load_share=0.9))
    np.testing.assert_allclose(response.accepted_kw, [[50.0, -50.0, 30.0, -30.0], [-90.0, -80.0, -90.0, -80.0]])
    np.testing.assert_allclose(response.shed_kw, 0.0, atol=1e-4)


def test_pure_quadratics_curtail_imports_and_shed_load_where_nothing_binds():
    dso = operator({"v_min_pu": 0.8, "v_max_pu": 1.2}, penalty=Penalty.quadratic_only(0.005, 0.1))
    response = dso(query(dso, [20.0, -20.0, 5.0, -5.0]))
    np.testing.assert_allclose(response.accepted_kw[[0, 2]], [20.0, 5.0], rtol=1e-6)
    # 2 lambda (a - t) = nodal price, and 2 c_ls s = nodal price where some of a load is left.
    import_bus = dso.trade_bus[1]
    np.testing.assert_allclose(response.accepted_kw[1] + 20.0, response.price_per_kwh[import_bus] / 0.01, rtol=1e-4)
    assert response.accepted_kw[3] == pytest.approx(0.0, abs=1e-4)
    partly = np.flatnonzero((query(dso, np.zeros(4)).load_kw > 1.0) & (np.arange(33) > 0))
    worth = response.price_per_kwh + dso.feeder.load_kvar / np.maximum(dso.feeder.load_kw, 1.0) * (
        response.reactive_price_per_kvarh
    )
    np.testing.assert_allclose(0.2 * response.shed_kw[partly], worth[partly], rtol=1e-4)


def test_exports_are_curtailed_to_the_upper_voltage():
    dso = operator()
    response = dso(query(dso, [900.0, 0.0, 0.0, 900.0], load_share=0.1))
    assert response.status == DsoStatus.OPTIMAL
    assert response.accepted_kw[0] < 899.0
    assert 1.045 < response.voltage_pu.max() <= 1.05


def test_plain_upper_voltage_says_that_it_is_not_tight_and_shows_the_ac_voltages():
    dso = operator(upper_voltage="plain")
    asked = query(dso, [[900.0, 0.0, 0.0, 900.0], [30.0, -30.0, 30.0, -30.0]], load_share=0.1)
    response = dso(asked)
    np.testing.assert_array_equal(response.status, [DsoStatus.RELAXATION_NOT_TIGHT, DsoStatus.OPTIMAL])
    assert response.relaxation_gap_pu[0] > 1e-2
    assert "its prices are not to be trusted" in DsoStatus(response.status[0]).sentence
    physics = dispatch_power_flow(dso.layout, response, dso.problem(asked))
    assert response.voltage_pu[0].max() > 1.055
    for name in ("voltage_pu", "flow_kw", "flow_kvar", "current_a", "losses_kw", "substation_kw", "substation_kvar"):
        np.testing.assert_array_equal(getattr(response, name)[0], getattr(physics, name)[0], err_msg=name)
    assert_row(1, response, dso(query(dso, [30.0, -30.0, 30.0, -30.0], load_share=0.1)))


def test_exports_through_a_narrow_line_stay_tight():
    # Behind the line the price is negative: a relaxation of true flows alone would burn the surplus.
    dso = operator()
    i_max_a = np.full(33, 400.0)
    i_max_a[dso.feeder.index(25)] = 30.0
    response = dso(query(dso, [0.0, 0.0, 1500.0, 0.0], load_share=0.4, i_max_a=i_max_a))
    assert response.status == DsoStatus.OPTIMAL
    assert response.price_per_kwh[dso.feeder.index(25)] < 0
    assert 0.98 * 30.0 < response.current_a[dso.feeder.index(25)] <= 30.0 + 1e-6


def test_an_infeasible_network_curtails_everything_and_keeps_figures_finite():
    # The source itself is below the least voltage: no shedding reaches it.
    feeder = replace(ieee33(), v_source_pu=0.94)
    dso = OpfDso(feeder, [16, 21])
    response = dso(query(dso, [[50.0, -50.0], [0.0, 0.0]]))
    np.testing.assert_array_equal(response.status, DsoStatus.INFEASIBLE)
    np.testing.assert_array_equal(response.accepted_kw, 0.0)
    np.testing.assert_array_equal(response.price_per_kwh, LMP)
    assert_finite(response)
    # What is shown is what flows then.
    physics = solve_power_flow(feeder, -0.6 * feeder.load_kw, -0.6 * feeder.load_kvar)
    np.testing.assert_array_equal(response.voltage_pu[1], physics.voltage_pu)


def test_one_infeasible_row_leaves_the_others_alone():
    dso = operator()
    v_min_pu = np.stack([np.full(33, 0.95), np.full(33, 1.01)])
    response = dso(query(dso, np.full((2, 4), 20.0), v_min_pu=v_min_pu))
    np.testing.assert_array_equal(response.status, [DsoStatus.OPTIMAL, DsoStatus.INFEASIBLE])
    assert_row(0, response, dso(query(dso, np.full(4, 20.0))))


def test_unchecked_trades_are_all_carried_out():
    dso = operator()
    proposed_kw = np.array([[900.0, 0.0, 0.0, 900.0], [-300.0, 100.0, -200.0, -300.0]])
    unchecked, checked = UncheckedDso(dso)(query(dso, proposed_kw, 0.1)), dso(query(dso, proposed_kw, 0.1))
    np.testing.assert_array_equal(unchecked.accepted_kw, proposed_kw)
    assert unchecked.voltage_pu.max() > 1.05 >= checked.voltage_pu.max()
    assert_finite(unchecked)
    # All but the cut is as ever: generators and prices answer what was submitted.
    idle = dso(query(dso, np.zeros(4), 0.1))
    np.testing.assert_array_equal(unchecked.generator_kw, checked.generator_kw)
    np.testing.assert_array_equal(unchecked.price_per_kwh, checked.price_per_kwh)
    assert not np.allclose(unchecked.price_per_kwh, idle.price_per_kwh, atol=1e-3)


def test_unchecked_trades_without_trades_are_the_plan():
    dso = operator()
    unchecked, planned = UncheckedDso(dso)(query(dso, np.zeros(4))), dso(query(dso, np.zeros(4)))
    np.testing.assert_allclose(unchecked.voltage_pu, planned.voltage_pu, atol=1e-7)
    np.testing.assert_array_equal(unchecked.price_per_kwh, planned.price_per_kwh)


def test_unchecked_trades_beyond_what_the_feeder_carries_are_a_status():
    dso = operator()
    response = UncheckedDso(dso)(query(dso, [-9000.0, 0.0, 0.0, -9000.0]))
    assert response.status == DsoStatus.POWER_FLOW_DIVERGED
    assert_finite(response)


def test_zero_proposals_and_zero_loads_are_questions_too():
    dso = operator()
    response = dso(query(dso, np.zeros(4), load_share=0.0))
    assert response.status == DsoStatus.OPTIMAL
    np.testing.assert_array_equal(response.accepted_kw, 0.0)
    np.testing.assert_allclose(response.voltage_pu, 1.0, atol=1e-7)
    np.testing.assert_allclose(response.price_per_kwh, LMP, atol=1e-6)
    np.testing.assert_allclose(response.losses_kw, 0.0, atol=1e-6)


def test_an_operator_without_trades_answers():
    dso = OpfDso(ieee33(), [])
    response = dso(query(dso, np.zeros(0)))
    assert response.status == DsoStatus.OPTIMAL
    assert response.accepted_kw.shape == (0,)


def test_trades_are_possible_at_every_bus_the_substation_included():
    dso = OpfDso(ieee33())
    response = dso(query(dso, np.full(33, 1.0)))
    np.testing.assert_allclose(response.accepted_kw, 1.0, rtol=1e-5)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0,)])
def test_a_batch_of_any_shape_equals_one_by_one(shape):
    dso = operator(generators=generator(ieee33()))
    rng = np.random.default_rng(2)
    asked = query(dso, rng.uniform(-300.0, 300.0, (*shape, 4)), load_share=rng.uniform(0.3, 0.9, shape))
    asked = replace(asked, lmp_per_kwh=rng.uniform(0.06, 0.16, shape))
    together = dso(asked)
    assert together.voltage_pu.shape == (*shape, 33)
    assert together.losses_kw.shape == together.status.shape == shape
    given = {f.name: getattr(asked, f.name) for f in fields(asked)}
    for index in np.ndindex(shape):
        row = {name: v[index] for name, v in given.items() if isinstance(v, np.ndarray)}
        assert_row(index, together, dso(replace(asked, **row)))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda dso: pickle.loads(pickle.dumps(dso))])
def test_a_copy_of_a_used_operator_answers_alike_and_so_does_one_with_a_past(duplicate):
    dso = operator(generators=generator(ieee33()))
    asked = query(dso, [300.0, -200.0, 100.0, -400.0])
    before = dso(asked)
    dso(query(dso, [900.0, 0.0, 0.0, 900.0], load_share=0.1))
    dso(query(dso, np.zeros(4), v_min_pu=np.full(33, 1.01)))
    assert_same(before, dso(asked))
    assert_same(before, duplicate(dso)(asked))


def test_penalties_and_limits_may_differ_in_every_row():
    dso = operator()
    proposed_kw = np.tile([-900.0, 0.0, 0.0, -900.0], (2, 1))
    penalty = Penalty(
        kappa_per_kwh=np.array([[0.05], [0.2]]),
        lambda_corr_per_kw2h=np.array([[0.005] * 4, [0.001, 0.002, 0.003, 0.004]]),
        voll_per_kwh=np.array([[3.0], [5.0]]),
        c_ls_per_kw2h=np.stack([np.zeros(33), np.linspace(0.0, 0.1, 33)]),
    )
    v_min_pu = np.array([[0.95], [0.97]]) * np.ones(33)
    i_max_a = np.array([[400.0], [300.0]]) * np.ones(33)
    together = dso(query(dso, proposed_kw, penalty=penalty, v_min_pu=v_min_pu, i_max_a=i_max_a))
    for row in range(2):
        own = replace(penalty, **{f.name: getattr(penalty, f.name)[row] for f in fields(penalty)[:4]})
        alone = dso(query(dso, proposed_kw[row], penalty=own, v_min_pu=v_min_pu[row], i_max_a=i_max_a[row]))
        assert_row(row, together, alone)
    assert together.voltage_pu[1].min() == pytest.approx(0.97, abs=1e-6)


def test_free_reactive_power_of_a_generator_supports_the_voltage():
    load, trades = 0.8, [-300.0, 0.0, 0.0, 0.0]
    feeder = ieee33()
    dear = {"b_per_kwh": 10.0}  # so that no active power is generated
    without = operator(generators=generator(feeder, q_min_kvar=0.0, q_max_kvar=0.0, **dear))
    with_kvar = operator(generators=generator(feeder, **dear))
    alone, helped = without(query(without, trades, load)), with_kvar(query(with_kvar, trades, load))
    assert helped.generator_kvar[0] > 100.0
    assert helped.cost_per_hour < alone.cost_per_hour
    assert helped.shed_kw.sum() < alone.shed_kw.sum()
    assert helped.accepted_kw[0] < alone.accepted_kw[0] - 50.0


def test_shedding_takes_reactive_load_along():
    dso = operator()
    asked = query(dso, np.zeros(4), load_share=1.0)
    response = dso(asked)
    shed = response.shed_kw / np.maximum(asked.load_kw, 1.0)
    assert shed.max() > 0.5
    drawn_kvar = asked.load_kvar.sum() - (shed * asked.load_kvar).sum()
    losses_kvar = (dso.feeder.x_pu * (response.current_a / dso.feeder.base_a) ** 2).sum() * dso.feeder.base_kva
    np.testing.assert_allclose(response.substation_kvar, drawn_kvar + losses_kvar, atol=1e-3)


def test_every_fault_of_a_query_is_named_at_once():
    dso = operator()
    load_kvar = 0.6 * dso.feeder.load_kvar
    load_kvar[7] = np.nan
    with pytest.raises(InvalidQuery) as raised:
        dso(
            query(
                dso,
                np.zeros(3),
                load_kvar=load_kvar,
                lmp_per_kwh=np.nan,
                root_price_per_kwh=np.array([0.1]),
                v_min_pu=np.full(32, 0.95),
                penalty=Penalty(kappa_per_kwh=np.zeros(5)),
            )
        )
    for fault in (
        "proposed_kw has shape (3,), not (4,)",
        "load_kvar is not finite at [7]",
        "lmp_per_kwh is not finite",
        "root_price_per_kwh has shape (1,), not ()",
        "v_min_pu has shape (32,)",
        "kappa_per_kwh has shape (5,)",
    ):
        assert fault in str(raised.value)


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"v_min_pu": np.full(33, 1.06)}, "v_min_pu is above v_max_pu"),
        ({"v_min_pu": np.full(33, -1.0)}, "v_min_pu is negative"),
        ({"v_max_pu": np.full(33, np.inf)}, "v_max_pu is not finite"),
        ({"i_max_a": np.zeros(33)}, "i_max_a is not positive"),
        ({"i_max_a": np.full(33, np.nan)}, "i_max_a is NaN"),
        ({"root_price_per_kwh": np.array(np.nan)}, "root_price_per_kwh is not finite"),
        ({"penalty": Penalty(lambda_corr_per_kw2h=-1.0)}, "quadratic_per_kw2h is negative"),
        ({"penalty": Penalty(voll_per_kwh=np.nan)}, "linear_per_kwh is not finite"),
    ],
)
def test_senseless_limits_and_penalties_are_refused(given, fault):
    dso = operator()
    with pytest.raises(InvalidQuery, match=fault):
        dso(query(dso, np.zeros(4), **given))


def test_ratings_for_a_feeder_without_any_are_refused():
    dso = OpfDso(load_feeder("ieee33"), [16])
    with pytest.raises(InvalidQuery, match="give the feeder finite ratings first"):
        dso(query(dso, np.zeros(1), i_max_a=np.full(33, 100.0)))


def test_a_trade_at_a_bus_that_is_not_there_is_refused():
    with pytest.raises(InvalidQuery, match="there is no bus at position 33; there is no bus at position -1"):
        OpfDso(ieee33(), [33, 2, -1])


def test_the_solver_is_a_name_a_path_or_a_class():
    answers = [
        operator(solver=solver)(query(operator(), [30.0, -20.0, 10.0, -40.0]))
        for solver in ("conic", "peergrid.grid.opf.conic:ConicOpf", ConicOpf)
    ]
    assert_same(answers[0], answers[1])
    assert_same(answers[0], answers[2])
    with pytest.raises(UnknownName, match="Did you mean 'conic'"):
        operator(solver="conik")


def test_every_status_has_a_sentence_and_every_operator_is_a_dso():
    assert all(status.sentence for status in DsoStatus)
    assert isinstance(operator(), Dso)
    assert isinstance(UncheckedDso(operator()), Dso)
    assert is_dataclass(operator()(query(operator(), np.zeros(4))).price_parts)


def test_what_was_accepted_once_is_accepted_again_if_curtailment_is_counted_from_the_first_proposal():
    feeder = load_feeder("ieee33")
    narrow = replace(feeder, v_min_pu=np.full(33, 0.95), v_max_pu=np.full(33, 1.05))
    dso = OpfDso(narrow, [narrow.index(18), narrow.index(33)])
    wanted = np.array([2000.0, -800.0])
    first = DsoQuery(
        load_kw=0.5 * feeder.load_kw, load_kvar=0.5 * feeder.load_kvar, proposed_kw=wanted, lmp_per_kwh=0.1
    )
    accepted = dso(first).accepted_kw
    assert abs(accepted[0] - wanted[0]) > 50.0
    again = dso(replace(first, proposed_kw=accepted, first_proposed_kw=wanted)).accepted_kw
    np.testing.assert_allclose(again, accepted, atol=0.05)


def test_names_of_buses_are_not_taken_for_positions():
    # In a process of its own, where types are not checked.
    code = "from peergrid.grid import OpfDso, load_feeder; OpfDso(load_feeder('ieee33'), ['18'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "InvalidQuery: trade_bus is ['18'], not positions of buses: feeder.index(name) gives one" in done.stderr


def test_generators_whose_arrays_do_not_match_are_named():
    generators = Generators(bus=(1,), p_min_kw=np.zeros(1), p_max_kw=np.ones(1), a_per_kw2h=np.zeros(1))
    with pytest.raises(InvalidQuery) as raised:
        OpfDso(load_feeder("ieee33"), [1], generators=generators)
    for name in ("q_min_kvar", "q_max_kvar", "b_per_kwh"):
        assert f"{name} of the generators has shape (0,), not (1,)" in str(raised.value)


def test_the_layout_says_which_injection_is_which_device():
    feeder = ieee33()
    dso = OpfDso(feeder, [16, 21, 21], generators=generator(feeder, p_max_kw=700.0))
    layout, asked = dso.layout, dso.problem(query(dso, [30.0, -20.0, 0.0])).injections
    assert layout.n_device == 1 + 1 + 32 + 3
    np.testing.assert_array_equal(layout.bus, asked.bus)
    np.testing.assert_array_equal(np.flatnonzero(layout.has_free_q), [0, 1])
    assert layout.bus[layout.substation] == 0
    assert asked.p_max_kw[layout.substation] == dso.substation_limit_kva
    np.testing.assert_array_equal(layout.generator_bus, [feeder.index(18)])
    np.testing.assert_array_equal(asked.p_max_kw[layout.generators], 700.0)
    np.testing.assert_array_equal(layout.bus[layout.sheddable], np.arange(1, 33))
    np.testing.assert_array_equal(asked.p_max_kw[layout.sheddable], 0.6 * feeder.load_kw[1:])
    np.testing.assert_array_equal(layout.trade_bus, [16, 21, 21])
    np.testing.assert_array_equal(asked.p_max_kw[layout.trades], [30.0, 0.0, 0.0])


def test_the_same_operator_with_another_solver_is_as_if_made_with_it():
    own = operator(generators=generator(ieee33()), penalty=Penalty(kappa_per_kwh=0.02), substation_limit_kva=3000.0)
    other = own.with_solver("conic")
    assert isinstance(other.solver, ConicOpf)
    asked = query(own, [30.0, -20.0, 10.0, -40.0])
    right = operator(generators=own.generators, penalty=own.penalty, substation_limit_kva=3000.0, solver="conic")(asked)
    assert_same(other(asked), right)
    assert_same(other.with_solver("interior_point")(asked), own(asked))
