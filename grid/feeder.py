"""The network as frozen arrays. Read this file first.

Units and signs, for the whole package: kW, kvar, ohm (per phase), kV (line to line), A (per phase); voltage magnitudes
in p.u. An injection into the network is positive, a withdrawal negative; `load_kw` alone counts withdrawals.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from functools import cached_property, partial

import numpy as np
from jaxtyping import Bool, Float, Inexact, Int, Shaped

from peergrid.grid.errors import InvalidFeeder, raise_faults

# No quantity of a network comes near this; beyond it, products overflow.
MOST, LEAST_KV, LEAST_BASE_KVA = 1e12, 1e-3, 1e-3
# A line break in a name would be one in the table of buses.
CONTROL = re.compile("[\\x00-\\x1f\\x7f-\\x9f]")
# Halves of a character, which no file in UTF-8 can hold.
SURROGATE = re.compile("[\\ud800-\\udfff]")


@dataclass(frozen=True, eq=False, kw_only=True)
class Feeder:
    """A radial feeder: bus 0 is the substation, and line j joins bus j to its parent.

    Buses stand in depth-first order, each right after its parent or after a finished sibling's lateral, so that the
    buses fed through line j are `j:subtree_end[j]`. Arrays have one entry per bus; those of the line are 0 (or
    infinite, for the rating) at the substation. Ohms and amperes of line j are referred to `base_kv` of bus j, so a
    transformer is a line whose ends have different base voltages.
    """

    name: str
    bus: tuple[str, ...]
    parent: Int[np.ndarray, " bus"]
    r_ohm: Float[np.ndarray, " bus"]
    x_ohm: Float[np.ndarray, " bus"]
    i_max_a: Float[np.ndarray, " bus"]
    base_kv: Float[np.ndarray, " bus"]
    v_min_pu: Float[np.ndarray, " bus"]
    v_max_pu: Float[np.ndarray, " bus"]
    load_kw: Float[np.ndarray, " bus"]
    load_kvar: Float[np.ndarray, " bus"]
    capacitor_kvar: Float[np.ndarray, " bus"]
    v_source_pu: float
    title: str = ""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                object.__setattr__(self, field.name, _read_only(value.copy()))
        check_feeder(self)

    def __reduce__(self) -> tuple[partial[Feeder], tuple[()]]:
        # Built anew when unpickled: pickle alone would bring the arrays back writable, and carry the cached ones along.
        return partial(Feeder, **{field.name: getattr(self, field.name) for field in fields(self)}), ()

    @property
    def n_bus(self) -> int:
        return len(self.bus)

    @cached_property
    def subtree_end(self) -> Int[np.ndarray, " bus"]:
        """One past the last bus that is fed through each line."""
        end = np.arange(1, self.n_bus + 1)
        for j in range(self.n_bus - 1, 0, -1):
            end[self.parent[j]] = max(end[self.parent[j]], end[j])
        return _read_only(end)

    @cached_property
    def on_path(self) -> Bool[np.ndarray, "bus bus"]:
        """Row j marks the buses on the way from the substation to bus j, both ends included."""
        column = np.arange(self.n_bus)
        return _read_only((column <= column[:, None]) & (column[:, None] < self.subtree_end))

    @cached_property
    def base_kva(self) -> float:
        """Base of the solvers' per-unit system: the nominal apparent load, 1 MVA where there is hardly one."""
        total = float(np.hypot(self.load_kw.sum(), self.load_kvar.sum()))
        return total if total >= LEAST_BASE_KVA else 1000.0

    @cached_property
    def r_pu(self) -> Float[np.ndarray, " bus"]:
        return _read_only(self.r_ohm * self.base_kva / (1000.0 * self.base_kv**2))

    @cached_property
    def x_pu(self) -> Float[np.ndarray, " bus"]:
        return _read_only(self.x_ohm * self.base_kva / (1000.0 * self.base_kv**2))

    @cached_property
    def base_a(self) -> Float[np.ndarray, " bus"]:
        """Amperes of 1 p.u. of current in each line."""
        return _read_only(self.base_kva / (np.sqrt(3.0) * self.base_kv))

    def index(self, bus: str | int) -> int:
        """Position of a bus in the arrays, from its name in the feeder's data.

        Raises:
            InvalidFeeder: No bus has that name.
        """
        try:
            return self.bus.index(str(bus))
        except ValueError:
            raise InvalidFeeder(f"feeder {self.name!r} has no bus {str(bus)!r}; its buses: {some(self.bus)}") from None

    def downstream_sum(self, x: Inexact[np.ndarray, "*batch bus"]) -> Inexact[np.ndarray, "*batch bus"]:
        """Sum of `x` over the buses fed through each line, its end included: O(n), as subtrees are contiguous."""
        # np.take, unlike x[..., index], leaves rows contiguous; the last bits of complex products depend on that.
        total = np.concatenate([np.zeros_like(x[..., :1]), np.cumsum(x, axis=-1)], axis=-1)
        fed: Inexact[np.ndarray, "*batch bus"] = np.take(total, self.subtree_end, axis=-1) - total[..., :-1]
        return fed

    def path_sum(self, x: Inexact[np.ndarray, "*batch bus"]) -> Inexact[np.ndarray, "*batch bus"]:
        """Sum of `x` along the way from the substation to each bus, both ends included, in O(n)."""
        # Walking the tree depth first, a bus opens at its own position and closes at subtree_end.
        closing_order, closed = self._closing
        zero = np.zeros_like(x[..., :1])
        total_closed = np.concatenate([zero, np.cumsum(np.take(x, closing_order, axis=-1), axis=-1)], axis=-1)
        passed: Inexact[np.ndarray, "*batch bus"] = np.cumsum(x, axis=-1) - np.take(total_closed, closed, axis=-1)
        return passed

    @cached_property
    def _closing(self) -> tuple[Int[np.ndarray, " bus"], Int[np.ndarray, " bus"]]:
        order = np.argsort(self.subtree_end, kind="stable")
        closed = np.searchsorted(self.subtree_end[order], np.arange(self.n_bus), side="right")
        return _read_only(order), _read_only(closed)


def check_feeder(feeder: Feeder) -> None:
    """Raise InvalidFeeder naming every fault at once, so that a data file is mended in one go."""
    faults: list[str] = []
    n = len(feeder.bus)
    values = {field.name: getattr(feeder, field.name) for field in fields(feeder)}
    arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
    faults += [f"{name} has shape {a.shape}, not ({n},)" for name, a in arrays.items() if a.shape != (n,)]
    if n == 0:
        faults.append("there is no bus")
    raise_faults(InvalidFeeder, f"feeder {feeder.name!r}", faults)

    def at(bad: Bool[np.ndarray, " bus"]) -> str:
        return f"at buses {some([feeder.bus[j] for j in np.flatnonzero(bad)])}"

    def fault(bad: Bool[np.ndarray, " bus"], what: str) -> None:
        if bad.any():
            faults.append(f"{what} {at(bad)}")

    is_line = np.arange(n) > 0
    duplicates = {b for b in feeder.bus if feeder.bus.count(b) > 1} if len(set(feeder.bus)) < n else set()
    if duplicates:
        faults.append(f"bus names are not unique: {some(sorted(duplicates))}")
    unwritable = [repr(b) for b in feeder.bus if CONTROL.search(b)]
    if unwritable:
        faults.append(f"bus names hold line breaks or other control characters: {some(unwritable)}")
    if feeder.parent[0] != -1:
        faults.append("bus 0 must be the substation, with parent -1")
    disorder = is_line & ((feeder.parent < 0) | (feeder.parent >= np.arange(n)))
    fault(disorder, "parent is not listed before its child")
    if not disorder.any() and not _is_depth_first(feeder.parent):
        faults.append("buses are not in depth-first order (feeder_from_tables sorts them)")
    for name, array in arrays.items():
        if name == "i_max_a":
            fault(np.isnan(array), "i_max_a is NaN (write inf where there is no rating)")
        elif name != "parent":
            fault(~np.isfinite(array), f"{name} is not finite")
            fault(np.isfinite(array) & (np.abs(array) > MOST), f"{name} is beyond {MOST:g}")
    if feeder.r_ohm[0] != 0 or feeder.x_ohm[0] != 0:
        faults.append("r_ohm and x_ohm of bus 0 are not zero: no line feeds the substation")
    fault(is_line & (feeder.r_ohm < 0), "r_ohm is negative")
    fault(is_line & (feeder.r_ohm == 0) & (feeder.x_ohm == 0), "r_ohm and x_ohm are both zero (merge the two buses)")
    fault(is_line & (feeder.i_max_a <= 0), "i_max_a is not positive")
    fault(feeder.base_kv <= 0, "base_kv is not positive")
    fault((feeder.base_kv > 0) & (feeder.base_kv < LEAST_KV), f"base_kv is below {LEAST_KV:g} (it is in kV)")
    fault(feeder.v_min_pu <= 0, "v_min_pu is not positive")
    fault(feeder.v_min_pu > feeder.v_max_pu, "v_min_pu is above v_max_pu")
    if not 0 < feeder.v_source_pu <= MOST:
        faults.append(f"v_source_pu is {feeder.v_source_pu}, not a positive number")
    unwritable = [ascii(text) for text in (feeder.name, feeder.title, *feeder.bus) if SURROGATE.search(text)]
    if unwritable:
        faults.append(f"names hold halves of characters: {some(unwritable)}")
    raise_faults(InvalidFeeder, f"feeder {feeder.name!r}", faults)


def _is_depth_first(parent: Int[np.ndarray, " bus"]) -> bool:
    open_buses = [0]
    for j in range(1, len(parent)):
        while open_buses and open_buses[-1] != parent[j]:
            open_buses.pop()
        if not open_buses:
            return False
        open_buses.append(j)
    return True


def _read_only(array: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    array.setflags(write=False)
    return array


def some(names: list[str] | tuple[str, ...], most: int = 12) -> str:
    """The first names of a list, in brackets, and how many more there are."""
    shown = ", ".join(names[:most])
    return f"[{shown}, and {len(names) - most} more]" if len(names) > most else f"[{shown}]"
