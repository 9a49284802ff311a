"""Configuration files as frozen dataclasses: shipped ones from `conf/<group>/<name>.yaml`, the user's from anywhere.

The same files are composed by Hydra; nothing here needs it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import numpy as np
import yaml

from peergrid.grid.errors import InvalidScenario, UnknownName, raise_faults
from peergrid.grid.parts import import_faults

T = TypeVar("T")
LARGEST_FLOAT = int(np.finfo(float).max)
# No quantity of a study comes near; beyond it, squares and sums overflow.
MOST = 1e12
# Nor any length of a study: a century of quarter hours.
MOST_INTERVALS = 3_500_000


def shipped_names(group: str) -> tuple[str, ...]:
    """Names of what is shipped in a group of configuration files."""
    folder = resources.files("peergrid.conf") / group
    return tuple(sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")))


def from_mapping(kind: type[T], values: Mapping[str, Any]) -> T:
    """A dataclass from nested mappings and lists, as YAML and Hydra give them.

    Raises:
        InvalidScenario: Unknown or missing keys, wrong types, contradictions; every fault is named.
    """
    faults: list[str] = []
    built = _build(kind, values, "", faults)
    faults += [] if built is None else import_faults(built)
    raise_faults(InvalidScenario, f"scenario {values.get('name', '(without a name)')!r}", faults)
    assert isinstance(built, kind)
    return built


def read_file(group: str, name: str, reading: tuple[str, ...] = ()) -> dict[str, Any]:
    """The values of a shipped file of that name, or of a YAML file, with those that it builds on.

    Args:
        reading: The files that build on this one.

    Raises:
        UnknownName: Neither shipped nor a file.
        InvalidScenario: Not readable as YAML, no mapping, or a circle of files.
    """
    if name in reading:
        raise InvalidScenario(f"scenarios build on each other in a circle: {' -> '.join((*reading, name))}")
    if name in shipped_names(group):
        text = (resources.files("peergrid.conf") / group / f"{name}.yaml").read_text(encoding="utf-8")
        folder = None
    elif name.endswith((".yaml", ".yml")) and Path(name).is_file():
        text, folder = _text(Path(name)), Path(name).parent
    else:
        raise UnknownName("scenario", name, shipped_names(group), hint="A YAML file or a Scenario will do as well.")
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InvalidScenario(f"{name}: {error}") from None
    if not isinstance(values, dict):
        raise InvalidScenario(f"{name}: a scenario is a mapping of keys to values")
    # `defaults` means what it means to Hydra: the files that this one builds on, in order.
    merged: dict[str, Any] = {}
    bases = values.pop("defaults", [])
    if not isinstance(bases, list):
        raise InvalidScenario(f"{name}: defaults is {bases!r}, not a list of scenarios")
    for base in bases:
        beside = folder / f"{base}.yaml" if folder else None
        # A user's file may go by the name of the shipped one that it builds on.
        is_other_file = beside is not None and beside.is_file() and str(beside) != name
        if base != "_self_":
            below = read_file(group, str(beside) if is_other_file else str(base), (*reading, name))
            merged = merged_with(merged, below)
    return merged_with(merged, values)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError) as error:
        raise InvalidScenario(f"{path} can't be read as text in UTF-8: {error}") from None


def merged_with(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values with others in place of those that the others name."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = merged_with(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return merged


def _build(cls: Any, values: Any, where: str, faults: list[str]) -> Any:
    if not isinstance(values, Mapping):
        faults.append(f"{where or 'scenario'} is {values!r}, not a mapping")
        return None
    if hasattr(cls, "of_kind"):  # one of several, which the values name
        try:
            cls = cls.of_kind(values)
        except UnknownName as error:
            faults.append(f"{where}kind: {error}")
            return None
    hints = get_type_hints(cls)
    known = {f.name: f for f in fields(cls)}
    before = len(faults)
    for key in values:
        if key not in known:
            close = get_close_matches(str(key), known, n=1)
            faults.append(f"unknown key {where}{key}" + (f" (did you mean {close[0]}?)" if close else ""))
    required = [n for n, f in known.items() if f.default is f.default_factory]  # both MISSING
    faults += [f"{where}{name} is missing" for name in required if name not in values]
    chosen = {k: _convert(hints[k], v, f"{where}{k}", faults) for k, v in values.items() if k in known}
    if len(faults) > before:
        return None
    try:
        return cls(**chosen)
    except ValueError as error:
        faults.append(str(error))
        return None


def _convert(kind: Any, value: Any, where: str, faults: list[str]) -> Any:
    if is_dataclass(kind):
        return _build(kind, value, f"{where}.", faults)
    if get_origin(kind) is tuple:
        if not isinstance(value, (list, tuple)):
            faults.append(f"{where} is {value!r}, not a list")
            return ()
        return tuple(_convert(get_args(kind)[0], item, f"{where}[{i}]", faults) for i, item in enumerate(value))
    if kind is str and isinstance(value, (str, int)) and not isinstance(value, bool):
        return str(value)  # bus names are often numbers
    if kind is float and isinstance(value, str):
        # YAML 1.1 takes 5e-5 for a string.
        with suppress(ValueError):
            value = float(value)
    is_number = isinstance(value, float) or (type(value) is int and abs(value) <= LARGEST_FLOAT)
    if kind is float and is_number:
        return float(value)
    if kind is int and is_number and float(value).is_integer():
        return int(value)
    if kind is bool and isinstance(value, bool):
        return value
    faults.append(f"{where} is {value!r}, not of type {getattr(kind, '__name__', kind)}")
    return value


def faulty_numbers(where: str, part: Any, may_be_negative: Sequence[str] = ()) -> list[str]:
    """What is wrong with the numbers of a part of a configuration: too large, or negative where not allowed."""
    faults = []
    for name, value in ((f.name, getattr(part, f.name)) for f in fields(part)):
        if name.startswith("rating_floor") and value == np.inf:
            continue
        if not isinstance(value, (int, float)) or (abs(value) <= MOST and (value >= 0 or name in may_be_negative)):
            continue
        beyond = " within 1e12" if MOST < abs(value) < np.inf else "" if name in may_be_negative else " >= 0"
        faults.append(f"{where}: {name} is {value}, not a number{beyond}")
    return faults


def faulty_fields(
    scenario: Any,
    *,
    positive: Sequence[str] = (),
    least: Mapping[str, int] | None = None,
    most: Mapping[str, int] | None = None,
    shares: Sequence[str] = (),
) -> list[str]:
    """Which fields of a scenario are beyond what they may be: positive, at least, at most, or between 0 and 1."""
    value = {f.name: getattr(scenario, f.name) for f in fields(scenario)}
    faults = [f"{name} is {value[name]}, not a positive number" for name in positive if not 0 < value[name] < np.inf]
    faults += [f"{name} is {value[name]}, below {low}" for name, low in (least or {}).items() if value[name] < low]
    faults += [f"{name} is {value[name]}, above {high}" for name, high in (most or {}).items() if value[name] > high]
    faults += [f"{name} is {value[name]}, outside [0, 1]" for name in shares if not 0 <= value[name] <= 1]
    return faults
