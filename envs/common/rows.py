"""Rows of a batch: some rows of every array in a dataclass, read or written."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Bool

T = TypeVar("T")


def unless_all(rows: Bool[np.ndarray, " batch"] | None) -> Bool[np.ndarray, " batch"] | None:
    """The marked rows, or None where all are marked."""
    return None if rows is None or rows.all() else rows


def rows_of(part: T, rows: Any) -> T:
    """These rows of every array in a dataclass or a tuple, those of their parts included; all rows if None."""
    if rows is None:
        return part
    if isinstance(part, np.ndarray):
        return part[rows]
    if isinstance(part, tuple):
        return tuple(rows_of(each, rows) for each in part)  # type: ignore[return-value]
    if not is_dataclass(part) or isinstance(part, type):
        return part
    return replace(part, **{f.name: rows_of(getattr(part, f.name), rows) for f in fields(part)})


def with_rows(part: T, rows: Bool[np.ndarray, " batch"], there: T) -> T:
    """A dataclass of arrays with other values in the marked rows, those of its parts included."""
    if isinstance(part, np.ndarray):
        return _written(part, rows, there)  # type: ignore[arg-type, return-value]
    if part is None:
        return part
    if isinstance(part, tuple):
        pairs = zip(part, there, strict=True)  # type: ignore[call-overload]
        return tuple(with_rows(each, rows, other) for each, other in pairs)  # type: ignore[return-value]
    names = [f.name for f in fields(part)]  # type: ignore[arg-type]
    return replace(part, **{n: with_rows(getattr(part, n), rows, getattr(there, n)) for n in names})  # type: ignore[type-var]


def _written(values: np.ndarray, rows: Bool[np.ndarray, " batch"], there: np.ndarray) -> np.ndarray:
    """A copy of an array with other values in the marked rows."""
    values = values.copy()
    values[rows] = there
    return values
