"""Whatever stands in tables and files of a feeder: a sound feeder, or InvalidFeeder that says what is wrong."""

import tempfile
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from peergrid.grid import DsoQuery, OpfDso, feeder_from_tables, load_feeder, save_feeder, solve_power_flow
from peergrid.grid.catalogue import BUS_COLUMNS, LINE_COLUMNS
from peergrid.grid.errors import InvalidFeeder, PeergridError
from peergrid.grid.feeder import Feeder
from peergrid.grid.power_flow import PowerFlowStatus

SHARE = settings(max_examples=2 * settings().max_examples)
SOLVED = settings(max_examples=settings().max_examples)
FILES = ("feeder.toml", "buses.csv", "lines.csv")

# Half characters and control characters too.
TEXT = st.one_of(
    st.text(max_size=5), st.text(st.characters(), max_size=5), st.text("\x00\x7f\r\n\"', \ud800", max_size=3)
)
ODD = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.integers(-(10**400), 10**400),
    st.sampled_from([0, -1.0, 1e-300, 1e300, 1e-9, 1e9, "", " ", "nan", "inf", "1e999", "0,1", "lots", "٣", "1_0"]),
    st.text(max_size=4),
    st.booleans(),
)


def bus_row(name, load=10.0):
    return dict(zip(BUS_COLUMNS, (name, 0.4, load, 0.3 * load, 0.0, 0.9, 1.1), strict=True))


def line_row(a, b, r=0.02, x=0.01):
    return dict(zip(LINE_COLUMNS, (a, b, r, x, 400.0), strict=True))


@st.composite
def radial(draw, names=None):
    """Tables of a radial feeder of up to nine buses, and what `feeder_from_tables` is told beside them."""
    n = draw(st.integers(1, 9))
    names = (
        draw(st.lists(names, min_size=n, max_size=n, unique=True)) if names is not None else [str(i) for i in range(n)]
    )
    loads = [0.0, *draw(st.lists(st.floats(0, 30), min_size=n - 1, max_size=n - 1))]
    buses = [bus_row(name, load) for name, load in zip(names, loads, strict=True)]
    ohm = st.floats(1e-4, 0.1)
    lines = []
    for i in range(1, n):
        ends = draw(st.permutations([names[draw(st.integers(0, i - 1))], names[i]]))
        lines.append(line_row(*ends, draw(ohm), draw(ohm)))
    return draw(st.permutations(buses)), draw(st.permutations(lines)), names[0]


@st.composite
def faulty(draw):
    """Tables with some cells, rows or ends changed into anything: loops, islands, twins, numbers that are none."""
    buses, lines, substation = draw(radial())
    buses, lines = [dict(row) for row in buses], [dict(row) for row in lines]
    for _ in range(draw(st.integers(1, 3))):
        rows = draw(st.sampled_from([buses, lines]))
        what = draw(st.sampled_from(["cell", "cell", "twin", "loss", "end", "column"]))
        if what == "end":
            named = [row["bus"] for row in buses if "bus" in row]
            lines.append(line_row(*(draw(st.sampled_from([*named, "nowhere"])) for _ in range(2))))
        elif rows:
            k = draw(st.integers(0, len(rows) - 1))
            column = draw(st.sampled_from(sorted(rows[k]) or ["none"]))
            if what == "cell":
                rows[k][column] = draw(ODD)
            elif what == "twin":
                rows.append(dict(rows[k]))
            elif what == "loss":
                rows.pop(k)
            else:
                rows[k].pop(column, None)
    return buses, lines, draw(st.sampled_from([substation, "9", 0]))


def assert_sound(feeder):
    """A tree whose numbers can be calculated with."""
    assert isinstance(feeder, Feeder)
    assert feeder.parent[0] == -1 and (feeder.parent[1:] < np.arange(1, feeder.n_bus)).all()
    for name in ("r_pu", "x_pu", "base_a", "load_kw", "v_min_pu"):
        assert np.isfinite(getattr(feeder, name)).all(), name
    flow = solve_power_flow(feeder, -feeder.load_kw, -feeder.load_kvar)
    assert np.isfinite(flow.voltage_pu).all() and np.isfinite(flow.flow_kw).all()
    return flow


def assert_same(one, other):
    for field in fields(Feeder):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name), strict=True)


@SHARE
@given(faulty())
def test_tables_with_faults_are_refused_or_make_a_sound_feeder(tables):
    buses, lines, substation = tables
    try:
        feeder = feeder_from_tables(buses, lines, name="t", substation=substation)
    except InvalidFeeder as error:
        assert len(str(error)) > len("feeder 't': ")
        return
    assert_sound(feeder)


@SHARE
@given(radial(), st.floats(0.9, 1.1))
def test_power_is_conserved_on_every_radial_feeder(tables, v_source_pu):
    buses, lines, substation = tables
    feeder = feeder_from_tables(buses, lines, name="t", substation=substation, v_source_pu=v_source_pu)
    flow = assert_sound(feeder)
    assume(flow.status == PowerFlowStatus.CONVERGED)
    np.testing.assert_allclose(flow.substation_kw, feeder.load_kw.sum() + flow.losses_kw, rtol=1e-8, atol=1e-8)
    assert flow.losses_kw >= 0


@SOLVED
@given(radial(), st.lists(st.floats(-60, 60), min_size=9, max_size=9), st.floats(0, 0.5))
def test_the_operator_answers_within_its_promises_on_every_radial_feeder(tables, proposed, lmp):
    buses, lines, substation = tables
    feeder = feeder_from_tables(buses, lines, name="t", substation=substation)
    t = np.array(proposed[: feeder.n_bus])
    answer = OpfDso(feeder)(
        DsoQuery(load_kw=feeder.load_kw, load_kvar=feeder.load_kvar, proposed_kw=t, lmp_per_kwh=lmp)
    )
    a, shed = answer.accepted_kw, answer.shed_kw
    for name in ("accepted_kw", "shed_kw", "voltage_pu", "flow_kw", "current_a", "price_per_kwh", "losses_kw"):
        assert np.isfinite(getattr(answer, name)).all(), name
    assert ((a >= np.minimum(t, 0)) & (a <= np.maximum(t, 0)) & (shed >= 0) & (shed <= feeder.load_kw)).all()
    if answer.status <= 1:
        drawn = feeder.load_kw.sum() - shed.sum() - a.sum() + answer.losses_kw
        scale = 1 + feeder.base_kva + np.abs(t).sum()
        np.testing.assert_allclose(answer.substation_kw, drawn, rtol=0, atol=1e-5 * scale)


@SHARE
@given(radial(names=TEXT), TEXT, TEXT, st.floats(0.1, 1e20))
def test_a_feeder_is_read_as_it_was_written_or_refused_before_anything_is_there(tables, name, title, v_source_pu):
    buses, lines, substation = tables
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "feeder"
        try:
            feeder = feeder_from_tables(
                buses, lines, name=name, title=title, substation=substation, v_source_pu=v_source_pu
            )
            save_feeder(feeder, path)
        except InvalidFeeder:
            assert not path.exists()
            return
        assert_same(load_feeder(path), feeder)


@SHARE
@given(st.data())
def test_damaged_files_are_refused_or_make_a_sound_feeder(data):
    with tempfile.TemporaryDirectory() as folder:
        save_feeder(
            feeder_from_tables([bus_row("a"), bus_row("b")], [line_row("a", "b")], name="t", substation="a"), folder
        )
        path = Path(folder) / data.draw(st.sampled_from(FILES))
        path.write_bytes(damaged(data.draw, path.read_bytes()))
        try:
            feeder = load_feeder(folder)
        except PeergridError:
            return
        assert_sound(feeder)


def damaged(draw, content):
    """The bytes cut, with one of them changed, or with others put in."""
    where = draw(st.integers(0, len(content) - 1))
    what = draw(st.sampled_from(["cut", "changed", "put in"]))
    if what == "cut":
        return content[:where]
    if what == "changed":
        return content[:where] + bytes([draw(st.integers(0, 255))]) + content[where + 1 :]
    return content[:where] + draw(st.binary(max_size=6)) + content[where:]


@pytest.mark.parametrize("name", FILES)
def test_a_folder_in_the_place_of_a_file_is_an_error_of_ours(tmp_path, name):
    save_feeder(feeder_from_tables([bus_row("a")], [], name="t", substation="a"), tmp_path)
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    with pytest.raises(InvalidFeeder, match=name):
        load_feeder(tmp_path)
