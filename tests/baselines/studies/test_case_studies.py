"""The case studies at reduced size: what each case must show whatever the weather."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from peergrid.baselines.entry import console_for_tables
from peergrid.baselines.studies.case_studies import (
    CASES,
    MARKET_COLUMNS,
    NETWORK_COLUMNS,
    NO_TRADE,
    CaseStudySettings,
    run,
    summarise,
    table,
)
from peergrid.envs.p2p_trading.scenario import load_scenario

SCENARIO = load_scenario("ieee33_communities", market=replace(load_scenario("ieee33").market, mechanism="direct"))


@pytest.fixture(scope="module")
def found():
    settings = CaseStudySettings(
        scenarios=["ieee33_communities"], scenario={"market": {"mechanism": "direct"}}, days=1, rounds=3, workers=1
    )
    return run(settings)[SCENARIO]


@pytest.fixture(scope="module")
def summaries(found):
    return {c: summarise(SCENARIO, c, records, found[NO_TRADE]) for c, records in found.items()}


def test_unchecked_trades_leave_the_limits_and_checked_ones_do_not(summaries):
    assert summaries["1"].bus_hours_beyond_limits > 0
    assert summaries["1"].loading_max > 1.0
    for case in (NO_TRADE, "2", "3"):
        assert summaries[case].bus_hours_beyond_limits == 0
        assert summaries[case].hours_overloaded == 0


def test_refined_proposals_are_accepted_and_pay_with_fewer_answers_of_the_dso(summaries):
    for case in ("3", "3o", "3h", "3ho"):
        assert summaries[case].acceptance_first > 0.98 > summaries["3c"].acceptance_first
        assert summaries["3c"].acceptance_first > summaries["2"].acceptance_first
        assert summaries[case].welfare > 0 and summaries[case].gain > 0
    assert summaries["3"].dso_solves == 24 < summaries["2"].dso_solves <= 3 * 24
    assert summaries["3"].messages == 2 * 4 * 24


def test_an_unchecked_network_is_asked_nothing_and_accepts_everything(summaries):
    for case in ("1", "3u"):
        assert (summaries[case].dso_solves, summaries[case].messages) == (0, 0)
        assert summaries[case].acceptance_first == summaries[case].acceptance_final == pytest.approx(1.0)


def test_a_prediction_alone_prevents_part_of_the_excess(summaries):
    assert summaries["3u"].bus_hours_beyond_limits < summaries["1"].bus_hours_beyond_limits


def test_gains_are_measured_from_no_trade(summaries):
    assert summaries[NO_TRADE].gain == 0
    assert summaries[NO_TRADE].welfare == 0


def test_every_solve_succeeded_and_was_tight(summaries):
    assert all(s.failed_solves == 0 and s.not_tight == 0 for s in summaries.values())


def test_tables_show_every_case_without_cutting_a_figure(summaries):
    console = console_for_tables()
    for columns in (NETWORK_COLUMNS, MARKET_COLUMNS):
        with console.capture() as captured:
            console.print(table("title", list(summaries.values()), columns))
        assert "…" not in captured.get()
        assert all(label in captured.get() for label in CASES.values())


def test_the_command_writes_results_and_figures(tmp_path):
    command = [sys.executable, "-m", "peergrid.baselines.case_studies", "scenarios=[ieee33]", "days=1", "rounds=2"]
    done = subprocess.run([*command, f"output={tmp_path}/out"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [s["case"] for s in results["summaries"]] == list(CASES)
    for name in ("voltage_profile", "acceptance", "economic_result", "dso_work"):
        assert (tmp_path / "out" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in tmp_path.iterdir()} == {"out"}  # nothing else is left behind


@pytest.mark.parametrize(
    ("override", "fault"),
    [("dayz=1", "dayz"), ("days=many", "many"), ("scenarios=[ieee34]", "Did you mean 'ieee33'")],
)
def test_a_misspelled_setting_fails_by_name(tmp_path, override, fault):
    command = [sys.executable, "-m", "peergrid.baselines.case_studies", override, "output=out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert fault in done.stderr
