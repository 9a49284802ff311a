from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from peergrid.envs.common.drawing import (
    Room,
    excesses,
    hours_of,
    kw,
    layout_tree,
    map_feeder,
    minus,
    mw,
    table,
    to_string,
)
from peergrid.grid.catalogue import feeder_names, load_feeder

TREES = st.lists(st.integers(0, 10**6), max_size=60).map(
    lambda picks: [-1] + [p % (j + 1) for j, p in enumerate(picks)]
)


def segments(parent: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[list, list]:
    """Vertical strokes as (x, from, to, bus) and horizontal ones as (y, from, to, bus), as lines are drawn."""
    vertical = [(x[p], *sorted((y[p], y[j])), j) for j, p in enumerate(parent) if j and y[p] != y[j]]
    horizontal = [(y[j], x[p], x[j], j) for j, p in enumerate(parent) if j]
    return vertical, horizontal


@given(TREES)
@settings(max_examples=200, deadline=None)
def test_no_two_buses_share_a_place_and_children_stand_right_of_their_parent(parents):
    parent = np.array(parents)
    x, y = layout_tree(parent)
    assert len(set(zip(x, y, strict=True))) == len(parent)
    assert (x[1:] == x[parent[1:]] + 1).all()
    assert (x[0], y[0]) == (0, 0)


@given(TREES)
@settings(max_examples=200, deadline=None)
def test_no_two_lines_cross(parents):
    parent = np.array(parents)
    vertical, horizontal = segments(parent, *layout_tree(parent))
    for at, low, high, j in vertical:
        for lane, start, end, k in horizontal:
            # A lane may begin or end on the stroke of its own siblings; nothing passes through.
            assert not (low < lane < high and start < at < end), (j, k)
            assert not (low < lane < high and end == at), (j, k)


def test_the_longest_path_is_straight():
    parent = np.array([-1, 0, 1, 2, 1, 4, 5, 6])
    x, y = layout_tree(parent)
    assert y[[0, 1, 4, 5, 6, 7]].tolist() == [0] * 6
    assert x.tolist() == [0, 1, 2, 3, 2, 3, 4, 5]
    assert abs(y[2]) == 1 and y[3] == y[2]


def test_laterals_of_one_lane_alternate_between_above_and_below():
    # A trunk of five buses, with a lateral of one bus at each of the first four.
    x, y = layout_tree(np.array([-1, 0, 1, 2, 3, 0, 1, 2, 3]))
    assert x[5:].tolist() == [1, 2, 3, 4]
    assert sorted(y[5:]) == [-1, -1, 1, 1]


@pytest.mark.parametrize("name", feeder_names())
def test_every_shipped_feeder_has_a_compact_layout(name):
    parent = load_feeder(name).parent
    x, y = layout_tree(parent)
    again = layout_tree(parent.copy())
    np.testing.assert_array_equal((x, y), again)
    lanes = len(np.unique(y))
    leaves = len(parent) - len(np.unique(parent[1:]))
    assert lanes <= leaves


def test_a_layout_handed_out_can_be_changed_without_harm():
    parent = np.array([-1, 0, 1, 0])
    x, _ = layout_tree(parent)
    x += 7
    assert layout_tree(parent)[0].tolist() == [0, 1, 2, 1]


def names_on_map(name: str, marked: list[str], height: float = 8.0) -> list[str]:
    """The names that find room on the map of a feeder with some marked buses."""
    feeder = load_feeder(name)
    chart = map_feeder(Figure(figsize=(12.0, height)), 0.425, 0.5, feeder, [feeder.index(bus) for bus in marked])
    chart.name_others(chart.room(19.0))
    return [text.get_text() for text in chart.axes.texts]


def test_powers_have_the_digits_that_matter():
    assert [kw(p) for p in (-0.04, 0.0, 3.14159, -99.94, 99.96, -1234.5)] == [
        "0.0",
        "0.0",
        "3.1",
        "-99.9",
        "100",
        "-1234",
    ]
    assert [mw(p) for p in (999.0, -1234.0)] == ["999 kW", "-1.23 MW"]
    assert minus("-1 to -2") == "\N{MINUS SIGN}1 to \N{MINUS SIGN}2"


def test_an_interval_runs_from_when_to_when():
    assert hours_of(23, 1.0) == "23:00 to 00:00"
    assert hours_of(3, 0.25) == "00:45 to 01:00"


def test_a_table_keeps_every_figure_and_no_trailing_space():
    rows = table("bus", "PV\nkW", spacing=1)
    rows.add_row("701", "12.5")
    lines = to_string(rows).splitlines()
    assert [line.split() for line in lines if "7" in line] == [["701", "12.5"]]
    assert all(line == line.rstrip() for line in lines)


def test_only_what_is_beyond_limits_is_counted():
    within = np.array([0.0, 1.0, 0.3])
    assert excesses(within, np.zeros(3, dtype=bool)) == []
    assert excesses(within + 0.2, np.array([False, True, True])) == ["1 lines overloaded", "2 buses beyond limits"]


def test_room_is_where_neither_lines_nor_boxes_are():
    line = np.array([[[5.0, 0.0], [5.0, 0.0]]])  # from (0, 0) to (10, 0)
    room = Room(line, np.zeros((0, 2, 2)))
    size = np.array([1.0, 1.0])
    on_line, above = np.array([2.0, 0.5]), np.array([2.0, 3.0])
    assert not room.is_free(on_line, size, over_lines=False)
    assert room.is_free(on_line, size, over_lines=True)
    assert room.is_free(above, size, over_lines=False)
    room.take(above[None], size[None])
    assert not room.is_free(above + 1.5, size, over_lines=True)
    assert room.is_free(above + 2.5, size, over_lines=True)


def test_every_bus_is_named_where_there_is_room():
    feeder = load_feeder("ieee33")
    assert set(names_on_map("ieee33", ["18"])) == set(feeder.bus[1:]) - {"18"}


def test_names_without_room_are_left_out_rather_than_written_over_others():
    roomy, tight = (names_on_map("ieee37", ["728", "731"], height) for height in (8.0, 1.2))
    assert len(roomy) == 34
    assert 0 < len(tight) < 34


def test_feeders_of_many_buses_name_the_marked_ones_alone():
    assert names_on_map("ieee123", []) == []


def test_a_text_takes_the_first_free_place_and_a_line_only_if_there_is_no_other():
    feeder = load_feeder("ieee33")
    bus = feeder.index("10")
    chart = map_feeder(Figure(figsize=(12.0, 8.0)), 0.425, 0.5, feeder, [bus])
    on_line, above, below = (12.0, 0.0), (0.0, 20.0), (0.0, -20.0)
    room = chart.room(5.0)
    for text in ("1st", "2nd", "3rd", "4th"):
        chart.write_beside(room, bus, text, [on_line, above, below], size=6.0, may_cover_lines=True)
    middle = np.array([chart.x[bus], chart.y[bus]])
    beside = {text.get_text(): tuple(text.get_position() - middle) for text in chart.axes.texts}
    assert beside == {"1st": above, "2nd": below, "3rd": on_line}
