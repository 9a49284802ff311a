"""Tables with names: one array [*batch, field, entry] to hand on, an array [*batch, entry] for each name to read.

The leading axes are those of the batch, none for a single problem. How a table lies in memory is up to who makes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, overload

import numpy as np
from jaxtyping import Float


class Field:
    """A field of a table: read by its name in the class that has the table, as a view that writes through.

    Fields stand in the class in the order of the table's rows.
    """

    def __init__(self, table: str) -> None:
        """
        Args:
            table: The attribute that holds the table.
        """
        self.table = table
        self.place = -1

    def __set_name__(self, owner: type, name: str) -> None:
        self.place = list(fields_of(owner, self.table)).index(name)

    @overload
    def __get__(self, instance: None, owner: type) -> Field: ...
    @overload
    def __get__(self, instance: object, owner: type) -> Float[np.ndarray, "*batch entry"]: ...
    def __get__(self, instance: object | None, owner: type) -> Any:
        return self if instance is None else instance.__dict__[self.table][..., self.place, :]


def fields_of(owner: type, table: str) -> tuple[str, ...]:
    """Names of a table's fields, in the order of its rows."""
    return tuple(name for name, value in vars(owner).items() if isinstance(value, Field) and value.table == table)


def plain(values: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """The numbers as compiled functions want them, copied if need be: in the order of the axes, and writable.

    For what comes read-only, broadcast or strided numba would compile anew.
    """
    is_plain = values.dtype == float and values.flags.carray
    return values if is_plain else np.require(values, float, ["C", "A", "W"])


def filled(
    names: tuple[str, ...],
    table: Float[np.ndarray, "*batch field entry"] | None,
    given: Mapping[str, Float[np.ndarray, "..."]],
) -> Float[np.ndarray, "*batch field entry"]:
    """A table with the fields that are given; the others are those of the table that stands there already.

    Raises:
        TypeError: A name is unknown; or there is no table, and not every field is given.
    """
    if table is not None and not given:
        return table
    if unknown := [name for name in given if name not in names]:
        raise TypeError(f"there are no fields {unknown}, but {list(names)}")
    if table is None:
        if missing := [name for name in names if name not in given]:
            raise TypeError(f"neither a table is given nor its fields {missing}")
        rows = [given[name] for name in names]
    else:
        rows = [given.get(name, table[..., place, :]) for place, name in enumerate(names)]
    return np.stack(np.broadcast_arrays(*rows), axis=-2, dtype=float)
