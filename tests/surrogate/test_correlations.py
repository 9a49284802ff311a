"""Pearson's coefficients at each bus: by hand, and none where nothing varies."""

import math

import numpy as np
import pytest

from peergrid.surrogate.report.correlations import TARGETS, pearson_by_bus, pearson_cells, pearson_markdown
from peergrid.surrogate.samples import Samples

BUS_NAMES = ("0", "a", "b")
TRADE_BUS = np.array([2, 1])  # the first microgrid is at bus b
FAILED = 3


@pytest.fixture
def samples():
    """Three solved rows, whose numbers are small, and a row that failed."""
    ones = np.ones(4, dtype=np.float32)
    loads = np.array([[0, 10, 30], [0, 10, 30], [0, 10, 60], [0, 99, 1e6]], dtype=np.float32)
    return Samples(
        hour=np.zeros(4, dtype=np.int8),
        load_kw=loads,
        load_kvar=np.array([[0, 5, 0], [0, 5, 40], [0, 5, 0], [0, 0, 0]], dtype=np.float32),
        proposed_kw=np.array([[10, 1], [20, 1], [30, -1], [9e9, 9e9]], dtype=np.float32),
        lmp_per_kwh=np.array([0.1, 0.2, 0.3, 50.0], dtype=np.float32),
        lambda_corr_per_kw2h=0.005 * ones,
        c_ls_per_kw2h=np.array([1, 0, 0, 7e5], dtype=np.float32),
        accepted_kw=np.array([[10, 1], [15, 1], [20, -1 + 1e-3], [0, 0]], dtype=np.float32),
        shed_kw=np.array([[0, 0, 3], [0, 1e-9, 0], [0, 0, 0], [0, 5, 5]], dtype=np.float32),
        price_per_kwh=np.array([[0.1, 0.3, 0.1], [0.1, 0.2, 0.2], [0.1, 0.1, 0.2], [9, 9, 9]], dtype=np.float32),
        status=np.array([0, 0, 0, FAILED], dtype=np.int8),
    )


def test_coefficients_match_those_by_hand(samples):
    found = pearson_by_bus(samples, BUS_NAMES, TRADE_BUS)
    assert list(found) == ["b", "a"]
    at_b = found["b"]
    # Proposals 10, 20, 30; corrections 0, 5, 10; prices 0.1, 0.2, 0.2; shedding 3, 0, 0.
    assert at_b["proposed net injection"]["correction"] == pytest.approx(1.0)
    assert at_b["proposed net injection"]["nodal price"] == pytest.approx(math.sqrt(3) / 2)
    assert at_b["LMP"]["shedding"] == pytest.approx(-math.sqrt(3) / 2)
    assert at_b["c_ls"]["shedding"] == pytest.approx(1.0)
    # Loads 30, 30, 60 and power factors 1, 0.6, 1.
    assert at_b["active load"]["correction"] == pytest.approx(math.sqrt(3) / 2)
    assert at_b["power factor"]["correction"] == pytest.approx(0.0, abs=1e-6)
    assert at_b["power factor"]["nodal price"] == pytest.approx(-0.5, rel=1e-5)
    assert found["a"]["LMP"]["nodal price"] == pytest.approx(-1.0)


def test_there_is_no_coefficient_of_what_does_not_vary(samples):
    found = pearson_by_bus(samples, BUS_NAMES, TRADE_BUS)
    assert all(math.isnan(value) for value in found["b"]["lambda_corr"].values())
    # At bus a the load is the same throughout, and the solver leaves traces of corrections and shedding.
    assert all(math.isnan(value) for value in found["a"]["active load"].values())
    for feature in found["a"].values():
        assert math.isnan(feature["correction"]) and math.isnan(feature["shedding"])


def test_there_are_none_where_nothing_was_solved(samples):
    found = pearson_by_bus(samples.rows(slice(3, None)), BUS_NAMES, TRADE_BUS)
    assert {cell for row in pearson_cells(found) for cell in row[2:]} == {"-"}


def test_the_table_for_a_page_names_a_bus_once_and_rounds(samples):
    lines = pearson_markdown(pearson_by_bus(samples, BUS_NAMES, TRADE_BUS)).splitlines()
    assert lines[0] == f"| bus | feature | {' | '.join(TARGETS)} |"
    assert len(lines) == 2 + 2 * 6 and {line.count("|") for line in lines} == {6}
    assert lines[2] == "| b | active load | 0.87 | 0.50 | -0.50 |"
    assert lines[3] == "|  | power factor | 0.00 | -0.50 | 0.50 |"
    assert lines[8] == "| a | active load | - | - | - |"
