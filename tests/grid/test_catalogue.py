from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from peergrid.grid import (
    Feeder,
    feeder_from_tables,
    feeder_names,
    feeder_source,
    load_feeder,
    save_feeder,
    solve_power_flow,
)
from peergrid.grid.errors import InvalidFeeder, UnknownName


def bus(name: str | int, **changes: str | float) -> dict[str, str | float]:
    row = dict(base_kv=0.4, load_kw=1.0, load_kvar=0.5, capacitor_kvar=0.0, v_min_pu=0.9, v_max_pu=1.1)
    return {"bus": name, **row, **changes}


def line(ends: str, **changes: str | float) -> dict[str, str | float]:
    from_bus, to_bus = ends.split("-")
    return {"from_bus": from_bus, "to_bus": to_bus, "r_ohm": 0.1, "x_ohm": 0.05, "i_max_a": "", **changes}


def fault_of(buses: str, lines: str) -> str:
    with pytest.raises(InvalidFeeder) as error:
        feeder_from_tables(map(bus, buses.split()), map(line, lines.split()), name="test", substation="1")
    return str(error.value)


def assert_same(a: Feeder, b: Feeder) -> None:
    for field in fields(Feeder):
        np.testing.assert_array_equal(getattr(a, field.name), getattr(b, field.name), strict=True)


@pytest.mark.parametrize("name", feeder_names())
def test_every_shipped_feeder_loads_and_states_its_source(name):
    feeder = load_feeder(name)
    assert feeder.name == name
    assert feeder.load_kw.sum() > 0
    for heading in ("Source", "Licence", "What was transformed", "Validation", "Known differences"):
        assert f"\n## {heading}\n" in feeder_source(name)


@pytest.mark.parametrize("name", feeder_names())
def test_a_saved_feeder_comes_back_exactly(name, tmp_path):
    feeder = load_feeder(name)
    save_feeder(feeder, tmp_path / "copy")
    assert_same(load_feeder(tmp_path / "copy"), feeder)


def test_names_that_need_quoting_come_back_exactly(tmp_path):
    title = 'Vesoul, "quai" \\ nº 3\n\ttwo lines'
    feeder = feeder_from_tables(
        [bus("a,b"), bus('say "c"', capacitor_kvar=1 / 3)],
        [line("x-y", from_bus="a,b", to_bus='say "c"', i_max_a=0.1 + 0.2)],
        name="d\\e",
        title=title,
        substation="a,b",
        v_source_pu=np.float64(1.02),
    )
    save_feeder(feeder, tmp_path)
    assert load_feeder(tmp_path).title == title
    assert_same(load_feeder(tmp_path), feeder)


def test_a_folder_of_the_user_loads(tmp_path):
    (tmp_path / "feeder.toml").write_text('name = "mine"\ntitle = ""\nsubstation = 7\nv_source_pu = 1\n')
    # A byte-order mark and blank ratings, as spreadsheets write them; a column of the user's own does no harm.
    (tmp_path / "buses.csv").write_text(
        "\ufeffbus,remark,base_kv,load_kw,load_kvar,capacitor_kvar,v_min_pu,v_max_pu\n"
        "8,school,0.4,12,3,0,0.94,1.1\n"
        "7,,0.4,0,0,0,0.94,1.1\n",
        encoding="utf-8",
    )
    (tmp_path / "lines.csv").write_text("from_bus,to_bus,r_ohm,x_ohm,i_max_a\n8,7,0.2,0.1, \n")
    feeder = load_feeder(tmp_path)
    assert feeder.bus == ("7", "8")
    assert feeder.load_kw.tolist() == [0.0, 12.0]
    assert np.isinf(feeder.i_max_a).all()


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(UnknownName, match=r"Did you mean 'ieee33'\?.*A folder with feeder\.toml will do"):
        load_feeder("ieee-33")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_feeder(load_feeder("ieee33"), tmp_path)
    return tmp_path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize("file", ["feeder.toml", "buses.csv", "lines.csv"])
def test_a_missing_file_is_named(folder, file):
    (folder / file).unlink()
    with pytest.raises(InvalidFeeder, match=file):
        load_feeder(folder)


def test_a_corrupt_settings_file_is_named(folder):
    edit(folder / "feeder.toml", "name = ", "name : ")
    with pytest.raises(InvalidFeeder, match=r"feeder\.toml: .*line 1"):
        load_feeder(folder)


def test_missing_and_mistaken_settings_are_all_named(folder):
    (folder / "feeder.toml").write_text('name = "x"\nv_source_pu = "one"\n')
    with pytest.raises(InvalidFeeder, match="title is missing; substation is missing; v_source_pu is 'one', not a num"):
        load_feeder(folder)


def test_missing_columns_are_all_named(folder):
    edit(folder / "buses.csv", "load_kw,load_kvar", "kw,kvar")
    with pytest.raises(InvalidFeeder, match=r"buses\.csv: column load_kw is missing; column load_kvar is missing"):
        load_feeder(folder)


def test_missing_columns_of_tables_are_all_named():
    row = bus("1")
    del row["v_min_pu"]
    with pytest.raises(InvalidFeeder, match="buses have no column v_min_pu; lines have no column i_max_a"):
        feeder_from_tables([row], [{"from_bus": 1, "to_bus": 2, "r_ohm": 1, "x_ohm": 1}], name="t", substation="1")


def test_integers_too_large_for_a_double_are_not_finite():
    with pytest.raises(InvalidFeeder, match=r"load_kw is not finite at buses \[1\]"):
        feeder_from_tables([bus("1", load_kw=10**400)], [], name="test", substation="1")


def test_cells_that_are_no_numbers_are_all_named():
    with pytest.raises(InvalidFeeder) as error:
        feeder_from_tables(
            [bus("1", load_kw="lots"), bus("2", v_max_pu=" ")],
            [line("1-2", r_ohm="0,1", x_ohm="")],
            name="test",
            substation="1",
        )
    assert str(error.value) == (
        "feeder 'test': load_kw of bus 1 is 'lots', not a number; v_max_pu of bus 2 is blank; "
        "r_ohm of line 1-2 is '0,1', not a number; x_ohm of line 1-2 is blank"
    )


def test_numbers_that_are_not_finite_are_named():
    with pytest.raises(
        InvalidFeeder, match=r"r_ohm is not finite at buses \[2\].*load_kw is not finite at buses \[1\]"
    ):
        feeder_from_tables([bus("1", load_kw="nan"), bus("2")], [line("1-2", r_ohm="inf")], name="t", substation="1")


@pytest.mark.parametrize(
    ("lines", "closing"),
    [
        ("1-2 2-3 3-1 3-4", "[3-1]"),
        ("1-2 2-3 3-4 4-2", "[4-2]"),
        ("1-2 2-1 2-3 3-4", "[2-1]"),
        ("1-2 2-3 2-3 3-4", "[2-3]"),
        ("1-1 1-2 2-3 3-4", "[1-1]"),
        ("1-2 2-3 3-3 3-4", "[3-3]"),
        ("1-2 2-3 3-1 3-4 4-1", "[3-1, 4-1]"),
    ],
    ids=["ring", "ring far out", "double line", "double line far out", "self-loop", "self-loop far out", "two rings"],
)
def test_lines_that_close_loops_are_named(lines, closing):
    assert fault_of("1 2 3 4", lines).startswith(f"feeder 'test': not radial: lines {closing} close loops")


def test_loops_and_lost_buses_are_named_together():
    message = fault_of("1 2 3 4 5", "1-2 2-3 3-1 4-5")
    assert "lines [3-1] close loops" in message
    assert "no line leads from the substation to buses [4, 5]" in message


def test_buses_that_are_unknown_or_listed_twice_are_named():
    message = fault_of("2 3 3", "2-3 3-9 8-7")
    assert "bus 3 is listed 2 times" in message
    assert "the substation '1' is not among the buses" in message
    assert "line 3-9 names unknown buses [9]" in message
    assert "line 8-7 names unknown buses [8, 7]" in message


def test_row_order_and_line_direction_do_not_change_the_physics():
    feeder = load_feeder("ieee123")
    rng = np.random.default_rng(0)
    buses = [
        bus(b, base_kv=4.16, load_kw=kw, load_kvar=kvar, capacitor_kvar=c)
        for b, kw, kvar, c in zip(feeder.bus, feeder.load_kw, feeder.load_kvar, feeder.capacitor_kvar, strict=True)
    ]
    lines = []
    for j in range(1, feeder.n_bus):
        ends = [feeder.bus[feeder.parent[j]], feeder.bus[j]]
        rng.shuffle(ends)
        lines.append(line("-".join(ends), r_ohm=feeder.r_ohm[j], x_ohm=feeder.x_ohm[j]))
    shuffled = feeder_from_tables(
        [buses[i] for i in rng.permutation(len(buses))],
        [lines[i] for i in rng.permutation(len(lines))],
        name="shuffled",
        substation=feeder.bus[0],
    )
    assert shuffled.bus != feeder.bus
    expected = solve_power_flow(feeder, -feeder.load_kw, -feeder.load_kvar)
    flow = solve_power_flow(shuffled, -shuffled.load_kw, -shuffled.load_kvar)
    place = [shuffled.index(b) for b in feeder.bus]
    np.testing.assert_allclose(flow.voltage_pu[place], expected.voltage_pu, atol=1e-12)
    np.testing.assert_allclose(flow.current_a[place], expected.current_a, atol=1e-8)
    np.testing.assert_allclose(flow.losses_kw, expected.losses_kw)


def test_a_substation_alone_is_a_feeder():
    feeder = feeder_from_tables([bus(1)], [], name="alone", substation=1)
    flow = solve_power_flow(feeder, np.array([-5.0]), np.array([-1.0]))
    assert (flow.substation_kw, flow.substation_kvar) == (pytest.approx(5.0), pytest.approx(1.0))
