"""Where feeders come from: shipped data, a user's folder in the same format, or tables already in memory.

A feeder is a folder of three files:

    feeder.toml   name, title, substation (a bus), v_source_pu
    buses.csv     bus, base_kv, load_kw, load_kvar, capacitor_kvar, v_min_pu, v_max_pu
    lines.csv     from_bus, to_bus, r_ohm, x_ohm, i_max_a (blank where there is no rating)

Shipped feeders have a SOURCE.md beside them, with the origin and licence of their data.
"""

from __future__ import annotations

import csv
import io
import json
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from peergrid.grid.errors import InvalidFeeder, UnknownName, raise_faults
from peergrid.grid.feeder import Feeder, some

SHIPPED = Path(__file__).parent / "data"
BUS_COLUMNS = ("bus", "base_kv", "load_kw", "load_kvar", "capacitor_kvar", "v_min_pu", "v_max_pu")
LINE_COLUMNS = ("from_bus", "to_bus", "r_ohm", "x_ohm", "i_max_a")
SETTINGS = ("name", "title", "substation", "v_source_pu")

Row = Mapping[str, str | int | float]


def feeder_names() -> tuple[str, ...]:
    """Names of the shipped feeders."""
    return tuple(sorted(path.parent.name for path in SHIPPED.glob("*/feeder.toml")))


def feeder_source(name: str) -> str:
    """Where the data of a shipped feeder come from, what was done to them, and their licence."""
    return (_folder(name) / "SOURCE.md").read_text(encoding="utf-8")


def load_feeder(name: str | Path) -> Feeder:
    """The shipped feeder of that name, or the feeder in a folder of CSV files.

    Raises:
        UnknownName: Neither a shipped feeder nor a folder.
        InvalidFeeder: The files describe no radial network; every fault is named.
    """
    folder = _folder(name)
    try:
        settings = tomllib.loads(_text(folder / "feeder.toml"))
    except tomllib.TOMLDecodeError as error:
        raise InvalidFeeder(f"{folder / 'feeder.toml'}: {error}") from None
    faults = [f"{key} is missing" for key in SETTINGS if key not in settings]
    if not isinstance(settings.get("v_source_pu", 1.0), int | float):
        faults.append(f"v_source_pu is {settings['v_source_pu']!r}, not a number")
    raise_faults(InvalidFeeder, str(folder / "feeder.toml"), faults)
    return feeder_from_tables(
        buses=_read_csv(folder / "buses.csv", BUS_COLUMNS),
        lines=_read_csv(folder / "lines.csv", LINE_COLUMNS),
        name=str(settings["name"]),
        title=str(settings["title"]),
        substation=settings["substation"],
        v_source_pu=float(settings["v_source_pu"]),
    )


def save_feeder(feeder: Feeder, folder: str | Path) -> None:
    """Write a feeder as the folder that `load_feeder` reads; numbers come back exactly."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "name": feeder.name,
        "title": feeder.title,
        "substation": feeder.bus[0],
        "v_source_pu": float(feeder.v_source_pu),
    }
    # JSON writes strings and numbers as TOML does, but for one character.
    toml = "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in settings.items())
    toml = toml.replace("\x7f", "\\u007f")
    (folder / "feeder.toml").write_text(toml, encoding="utf-8")

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
    faults = [f"buses have no column {c}" for c in BUS_COLUMNS if any(c not in row for row in buses)]
    faults += [f"lines have no column {c}" for c in LINE_COLUMNS if any(c not in row for row in lines)]
    raise_faults(InvalidFeeder, f"feeder {name!r}", faults)

    count = Counter(str(row["bus"]) for row in buses)
    faults += [f"bus {bus} is listed {times} times" for bus, times in count.items() if times > 1]
    if str(substation) not in count:
        faults.append(f"the substation {substation!r} is not among the buses")
    for row in lines:
        unknown = [str(row[end]) for end in ("from_bus", "to_bus") if str(row[end]) not in count]
        if unknown:
            faults.append(f"{_line_label(row)} names unknown buses [{', '.join(unknown)}]")
    values = {column: _numbers(buses, column, _bus_label, faults) for column in BUS_COLUMNS[1:]}
    line_values = {column: _numbers(lines, column, _line_label, faults) for column in ("r_ohm", "x_ohm")}
    line_values["i_max_a"] = _numbers(lines, "i_max_a", _line_label, faults, blank=np.inf)
    raise_faults(InvalidFeeder, f"feeder {name!r}", faults)

    order, parent, feeding = _walk([str(row["bus"]) for row in buses], lines, str(substation), name)
    is_line = np.arange(len(order)) > 0

    def along(column: str, at_substation: float) -> Float[np.ndarray, " bus"]:
        return np.where(is_line, line_values[column][feeding] if len(lines) else at_substation, at_substation)

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


def _walk(
    names: list[str], lines: list[Row], substation: str, name: str
) -> tuple[Int[np.ndarray, " bus"], Int[np.ndarray, " bus"], Int[np.ndarray, " bus"]]:
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
    waiting = [(position[substation], -1, -1)]
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
            if other not in place:
                waiting.append((other, place[bus], k))
            elif k != line:
                loops.add(k)
    faults = []
    if loops:
        ends = [f"{lines[k]['from_bus']}-{lines[k]['to_bus']}" for k in sorted(loops)]
        faults.append(f"not radial: lines {some(ends)} close loops (open one line in each)")
    if len(order) < len(names):
        lost = [bus for i, bus in enumerate(names) if i not in place]
        faults.append(f"not connected: no line leads from the substation to buses {some(lost)}")
    raise_faults(InvalidFeeder, f"feeder {name!r}", faults)
    return np.array(order), np.array(parent), np.array(feeding)


def _bus_label(row: Row) -> str:
    return f"bus {row['bus']}"


def _line_label(row: Row) -> str:
    return f"line {row['from_bus']}-{row['to_bus']}"


def _numbers(
    rows: list[Row], column: str, label: Callable[[Row], str], faults: list[str], blank: float | None = None
) -> Float[np.ndarray, " row"]:
    """One column as numbers, with `blank` for blank cells; cells that are none are added to the faults."""
    values = []
    for row in rows:
        cell = row[column]
        is_blank = isinstance(cell, str) and not cell.strip()
        try:
            values.append(blank if is_blank and blank is not None else float(cell))
        except ValueError:
            faults.append(f"{column} of {label(row)} is {'blank' if is_blank else repr(cell) + ', not a number'}")
            values.append(np.nan)
        except OverflowError:  # an integer of hundreds of digits
            values.append(np.inf)
    return np.array(values, dtype=float)


def _folder(name: str | Path) -> Path:
    if str(name) in feeder_names():
        return SHIPPED / str(name)
    if Path(name).is_dir():
        return Path(name)
    raise UnknownName("feeder", str(name), feeder_names(), hint="A folder with feeder.toml will do as well.")


def _read_csv(path: Path, columns: tuple[str, ...]) -> list[Row]:
    reader = csv.DictReader(io.StringIO(_text(path), newline=""))
    try:
        missing = [column for column in columns if column not in (reader.fieldnames or [])]
        raise_faults(InvalidFeeder, str(path), [f"column {column} is missing" for column in missing])
        return [{column: row[column] or "" for column in columns} for row in reader]
    except csv.Error as error:
        raise InvalidFeeder(f"{path}, line {reader.line_num}: {error}") from None


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise InvalidFeeder(f"{path} is missing") from None
    except UnicodeDecodeError as error:
        raise InvalidFeeder(f"{path} is no text in UTF-8: {error.reason} at byte {error.start}") from None
    except OSError as error:
        raise InvalidFeeder(f"{path} can't be read: {error.strerror}") from None


def _write_csv(path: Path, columns: tuple[str, ...], rows: Iterable[Iterable[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
