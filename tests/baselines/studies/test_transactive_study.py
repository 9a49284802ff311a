"""The transactive study: what it measures adds up, and every figure and table comes out of one command."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from peergrid.baselines.episode.transactive import play_day
from peergrid.baselines.policies.transactive import Optimising
from peergrid.baselines.studies.transactive_admm import solve_hours
from peergrid.baselines.studies.transactive_study import (
    CASES,
    LOOP,
    NO_LOOP,
    Job,
    day_to_draw,
    interval_of,
    play_case,
    scenario_of,
    summarise,
)
from peergrid.envs.transactive.scenario import load_scenario
from peergrid.envs.transactive.simulation import Transactive
from peergrid.envs.transactive.types import Closing

TIGHT = 0.0025


@pytest.fixture(scope="module")
def days():
    """A held-out day with and without the loop."""
    return {case: [play_case(Job("ieee37", case, 0, TIGHT))] for case in (NO_LOOP, LOOP)}


def test_the_loop_reduces_deviation_and_cost_on_a_held_out_day(days):
    (without,), (with_loop,) = days[NO_LOOP], days[LOOP]
    assert with_loop.deviation_kw.sum() < 0.7 * without.deviation_kw.sum()
    assert with_loop.total_cost.sum() < without.total_cost.sum()
    np.testing.assert_array_equal(with_loop.scheduled_kw, without.scheduled_kw)


def test_costs_and_bills_add_up_hour_by_hour(days):
    for (day,) in days.values():
        upstream = day.upstream_day_ahead + day.upstream_real_time
        np.testing.assert_allclose(day.total_cost, upstream + day.operating_cost, rtol=1e-9)  # nothing is shed
        gap = day.import_kw - day.scheduled_kw
        price = day.lmp_per_kwh * np.where(gap > 0, 1.2, 0.8)
        np.testing.assert_allclose(day.upstream_real_time, price * gap, rtol=1e-9, atol=1e-9)


def test_hours_are_traced_from_their_base_to_where_they_closed(days):
    (day,) = days[LOOP]
    assert len(day.traces) == 24
    for t, trace in enumerate(day.traces):
        assert len(trace.import_kw) == len(trace.root_per_kwh) == day.iterations[t]
        assert trace.root_per_kwh[0] == day.base_per_kwh[t] and trace.root_per_kwh[-1] == day.root_per_kwh[t]
        assert trace.import_kw[-1] == day.import_kw[t]
        # The signal rises exactly when more is imported than was scheduled.
        gaps = np.array(trace.import_kw[:-1]) - day.scheduled_kw[t]
        np.testing.assert_array_equal(np.sign(np.diff(trace.root_per_kwh)), np.sign(gaps))


def test_resources_follow_the_signal_over_the_day(days):
    (day,) = days[LOOP]
    for agent in range(day.signal_per_kwh.shape[1]):
        signal = day.signal_per_kwh[:, agent]
        for power in (day.shift_kw, day.generator_kw, day.storage_kw):
            assert np.corrcoef(signal, power[:, agent])[0, 1] > 0.5
        charging, discharging = day.storage_kw[:, agent] < -0.1, day.storage_kw[:, agent] > 0.1
        assert signal[charging].mean() < signal[discharging].mean()


def test_the_summary_is_of_the_days_it_is_given(days):
    summary = summarise(LOOP, days[LOOP], days[NO_LOOP])
    (day,) = days[LOOP]
    assert summary.cost.mean == pytest.approx(day.total_cost.sum())
    assert summary.deviation_percent.mean == pytest.approx(100 * day.deviation_kw.sum() / day.scheduled_kw.sum())
    assert summary.hours_within == (day.closing == Closing.WITHIN_THRESHOLD).sum()
    assert summary.hours_within + summary.hours_at_bound + summary.hours_out_of_iterations == 24
    nothing = summarise(NO_LOOP, days[NO_LOOP], days[NO_LOOP])
    assert nothing.cost_saved.mean == nothing.deviation_saved_percent.mean == 0


def test_the_interval_of_a_mean_covers_it_as_often_as_it_says():
    rng, covered = np.random.default_rng(0), 0
    for _ in range(100):
        found = interval_of(rng.normal(5.0, 1.0, 36))
        assert found.low < found.mean < found.high
        covered += found.low <= 5.0 <= found.high
    assert 88 <= covered <= 99


def test_the_day_that_is_drawn_has_iterations_in_all_its_hours(days):
    (day,) = days[LOOP]
    idle = replace(day, iterations=np.ones(24, dtype=int))
    busy = replace(day, iterations=np.full(24, 5))
    assert day_to_draw([idle, busy], [14, 18]) == 1
    assert day_to_draw([idle, idle], [14, 18]) == 0


def test_admm_solves_the_hours_of_a_day_as_the_central_solver_does(days):
    found = solve_hours(load_scenario("ieee37"), days[LOOP][0])
    assert found.cost_error.max() < 1e-4 and found.exchange_error.max() < 1e-3
    assert found.power_residual_pu.max() < 1e-6 and found.voltage_residual_pu.max() < 1e-5
    np.testing.assert_allclose(found.exchange_kw, days[LOOP][0].import_kw, rtol=1e-4)
    for t in (14, 18, 21):
        n = found.iterations[t]
        power = found.iterates.power_residual_pu[t, :n]
        assert power[-1] < 1e-2 * power[n // 2] < 1e-3 * power[0]  # the curves fall
        np.testing.assert_allclose(found.iterates.exchange_kw[t, n - 1], found.exchange_kw[t], rtol=1e-4)


def test_fixed_steps_cycle_around_a_tight_threshold_and_halved_ones_do_not():
    fixed, halving = (play_case(Job("ieee37", case, 0, TIGHT)) for case in ("fixed, tight", "halving, tight"))
    assert (fixed.closing == Closing.OUT_OF_ITERATIONS).sum() >= 2
    assert (halving.closing == Closing.OUT_OF_ITERATIONS).sum() == 0
    for t in np.flatnonzero(fixed.closing == Closing.OUT_OF_ITERATIONS):
        last = np.array(fixed.traces[t].import_kw[-6:]) - fixed.scheduled_kw[t]
        assert (np.sign(last[1:]) != np.sign(last[:-1])).sum() >= 2


def test_cases_set_rule_and_threshold_and_nothing_else():
    scenario = load_scenario("ieee37")
    for name, case in CASES.items():
        made = scenario_of(Job("ieee37", name, 0, TIGHT))
        assert made.loop.rule == case.rule
        assert made.loop.threshold_share == (TIGHT if case.is_tight else scenario.loop.threshold_share)
        assert replace(made, loop=scenario.loop) == scenario


def test_a_day_with_admm_as_solver_is_the_day_with_the_central_one():
    scenario = replace(load_scenario("ieee37"), intervals=3)
    central, admm = (play_day(Transactive(scenario, dso=dso), Optimising(), 0) for dso in (None, "admm"))
    np.testing.assert_allclose(admm.import_kw, central.import_kw, rtol=1e-3)
    assert admm.failed == central.failed == 0


@pytest.mark.slow
def test_the_command_prints_its_tables_and_writes_its_figures(tmp_path):
    command = [sys.executable, "-m", "peergrid.baselines.transactive_study", "days=2", f"output={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "deviation" in done.stdout and "Settlement" in done.stdout and "ADMM" in done.stdout
    written = {path.name for path in tmp_path.iterdir()}
    assert {"results.json", "transactive_iterations.png", "transactive_agent.png", "admm_iterations.png"} <= written
    results = json.loads((tmp_path / "results.json").read_text())
    assert {s["case"] for s in results["summaries"]} == set(CASES)
    assert all(len(days) == 2 for days in results["days"].values())
