"""Where feeders come from: shipped data, a user's folder in the same format, or tables already in memory.

A feeder is a folder of three files:

    feeder.toml   name, title, substation (a bus), v_source_pu
    buses.csv     bus, base_kv, load_kw, load_kvar, capacitor_kvar, v_min_pu, v_max_pu
    lines.csv     from_bus, to_bus, r_ohm, x_ohm, i_max_a (blank where there is no rating)

Shipped feeders have a SOURCE.md beside them, with the origin and licence of their figures.
"""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from peergrid.grid.errors import InvalidFeeder, UnknownName, raise_faults
from peergrid.grid.feeder import Feeder

SHIPPED = Path(__file__).parent / "data"
BUS_COLUMNS = ("bus", "base_kv", "load_kw", "load_kvar", "capacitor_kvar", "v_min_pu", "v_max_pu")
LINE_COLUMNS = ("from_bus", "to_bus", "r_ohm", "x_ohm", "i_max_a")
SETTINGS = ("name", "title", "substation", "v_source_pu")

Row = Mapping[str, str | float]


def feeder_names() -> tuple[str, ...]:
    """Names of the shipped feeders."""
    return tuple(sorted(path.parent.name for path in SHIPPED.glob("*/feeder.toml")))


def feeder_source(name: str) -> str:
    """Where the figures of a shipped feeder come from, what was done to them, and their licence."""
    return (_folder(name) / "SOURCE.md").read_text(encoding="utf-8")


def load_feeder(name: str | Path) -> Feeder:
    """The shipped feeder of that name, or the feeder in a folder of CSV files.

    Raises:
        UnknownName: Neither a shipped feeder nor a folder.
        InvalidFeeder: The files describe no radial network; every fault is named.
    """
    folder = _folder(name)
    try:
        settings = tomllib.loads((folder / "feeder.toml").read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise InvalidFeeder(f"{folder / 'feeder.toml'}: {error}") from None
    except FileNotFoundError:
        raise InvalidFeeder(f"{folder} holds no feeder.toml") from None
    missing = [key for key in SETTINGS if key not in settings]
    raise_faults(InvalidFeeder, str(folder / "feeder.toml"), [f"{key} is missing" for key in missing])
    return feeder_from_tables(
        buses=_read_csv(folder / "buses.csv", BUS_COLUMNS),
        lines=_read_csv(folder / "lines.csv", LINE_COLUMNS),
        name=settings["name"],
        title=settings["title"],
        substation=settings["substation"],
        v_source_pu=settings["v_source_pu"],
    )


def save_feeder(feeder: Feeder, folder: str | Path) -> None:
    """Write a feeder as the folder that `load_feeder` reads; numbers come back exactly."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    strings = {"name": feeder.name, "title": feeder.title, "substation": feeder.bus[0]}
    escaped = {key: text.replace("\\", "\\\\").replace('"', '\\"') for key, text in strings.items()}
    settings = [f'{key} = "{text}"' for key, text in escaped.items()] + [f"v_source_pu = {feeder.v_source_pu!r}"]
    (folder / "feeder.toml").write_text("\n".join(settings) + "\n", encoding="utf-8")

    bus_values = [getattr(feeder, column).tolist() for column in BUS_COLUMNS[1:]]
    _write_csv(folder / "buses.csv", BUS_COLUMNS, zip(feeder.bus, *bus_values, strict=True))
    ratings = ["" if np.isinf(i) else i for i in feeder.i_max_a.tolist()]
    lines = zip(
        (feeder.bus[p] for p in feeder.parent), feeder.bus, feeder.r_ohm.tolist(), feeder.x_ohm.tolist(), ratings,
        strict=True,
    )  # fmt: skip
    _write_csv(folder / "lines.csv", LINE_COLUMNS, list(lines)[1:])


def feeder_from_tables(
    buses: Iterable[Row],
    lines: Iterable[Row],
    *,
    name: str,
    substation: str | int,
    v_source_pu: float = 1.0,
    title: str = "",
) -> Feeder:
    """A feeder from rows of buses and lines in any order and direction, sorted depth first from the substation.

    Args:
        buses: Rows with the columns of BUS_COLUMNS.
        lines: Rows with the columns of LINE_COLUMNS.

    Raises:
        InvalidFeeder: Loops, unreachable or unknown buses, and figures that are no numbers, all named at once.
    """
    buses, lines = list(buses), list(lines)
    position = {str(row["bus"]): i for i, row in enumerate(buses)}
    faults: list[str] = []
    if len(position) < len(buses):
        faults.append("bus names are not unique")
    if str(substation) not in position:
        faults.append(f"the substation {substation!r} is not among the buses")
    for row in lines:
        unknown = [str(row[end]) for end in ("from_bus", "to_bus") if str(row[end]) not in position]
        if unknown:
            faults.append(f"line {row['from_bus']}-{row['to_bus']} names unknown buses {unknown}")
    values = {c: _column(buses, c, lambda row: f"bus {row['bus']}", faults) for c in BUS_COLUMNS[1:]}
    ends = lambda row: f"line {row['from_bus']}-{row['to_bus']}"  # noqa: E731
    line_values = {c: _column(lines, c, ends, faults, blank=np.inf) for c in LINE_COLUMNS[2:4]}
    line_values["i_max_a"] = _column(lines, "i_max_a", ends, faults, blank=np.inf)
    raise_faults(InvalidFeeder, f"feeder {name!r}", faults)

    order, parent, feeding = _walk([str(row["bus"]) for row in buses], lines, position[str(substation)], name)
    is_line = np.arange(len(order)) > 0

    def along(column: str, at_substation: float) -> np.ndarray:
        return np.where(is_line, line_values[column][feeding] if len(lines) else 0.0, at_substation)

    return Feeder(
        name=name,
        title=title,
        v_source_pu=float(v_source_pu),
        bus=tuple(str(buses[i]["bus"]) for i in order),
        parent=parent,
        r_ohm=along("r_ohm", 0.0),
        x_ohm=along("x_ohm", 0.0),
        i_max_a=along("i_max_a", np.inf),
        **{column: values[column][order] for column in BUS_COLUMNS[1:]},
    )


def _walk(names: list[str], lines: list[Row], root: int, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depth-first order of the buses, each one's parent in that order, and the line that feeds it."""
    position = {bus: i for i, bus in enumerate(names)}
    neighbours: list[list[tuple[int, int]]] = [[] for _ in names]
    for k, row in enumerate(lines):
        a, b = position[str(row["from_bus"])], position[str(row["to_bus"])]
        neighbours[a].append((b, k))
        neighbours[b].append((a, k))

    order: list[int] = []
    parent: list[int] = []
    feeding: list[int] = []
    place: dict[int, int] = {}
    loops: set[int] = set()
    waiting = [(root, -1, 0)]
    while waiting:
        bus, above, line = waiting.pop()
        if bus in place:
            loops.add(line)
            continue
        place[bus] = len(order)
        order.append(bus)
        parent.append(above)
        feeding.append(line)
        for other, k in reversed(neighbours[bus]):
            if k != line or above == -1:
                if other not in place:
                    waiting.append((other, place[bus], k))
                else:
                    loops.add(k)
    faults = []
    if loops:
        rows = [f"{lines[k]['from_bus']}-{lines[k]['to_bus']}" for k in sorted(loops)]
        faults.append(f"not radial: lines [{', '.join(rows)}] close loops (open one switch in each)")
    if len(order) < len(names):
        lost = [bus for i, bus in enumerate(names) if i not in place]
        faults.append(f"not connected: no line leads from the substation to buses [{', '.join(lost[:12])}]")
    raise_faults(InvalidFeeder, f"feeder {name!r}", faults)
    return np.array(order), np.array(parent), np.array(feeding)


def _column(rows: list[Row], column: str, what, faults: list[str], blank: float = np.nan) -> np.ndarray:  # type: ignore[no-untyped-def]
    values = []
    for row in rows:
        cell = row.get(column, "")
        try:
            values.append(blank if isinstance(cell, str) and not cell.strip() else float(cell))
        except ValueError:
            faults.append(f"{column} of {what(row)} is {cell!r}, not a number")
            values.append(blank)
    return np.array(values, dtype=float)


def _folder(name: str | Path) -> Path:
    if str(name) in feeder_names():
        return SHIPPED / str(name)
    if Path(name).is_dir():
        return Path(name)
    raise UnknownName("feeder", str(name), feeder_names(), hint="A folder with feeder.toml will do as well.")


def _read_csv(path: Path, columns: tuple[str, ...]) -> list[Row]:
    if not path.is_file():
        raise InvalidFeeder(f"{path} is missing")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = [column for column in columns if column not in (reader.fieldnames or [])]
        raise_faults(InvalidFeeder, str(path), [f"column {column} is missing" for column in missing])
        return [{column: row[column] or "" for column in columns} for row in reader]


def _write_csv(path: Path, columns: tuple[str, ...], rows: Iterable[Iterable[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
