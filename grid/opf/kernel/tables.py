"""Arrays that the kernel reads and writes; `layout.py` says which field of each is what."""

from __future__ import annotations

from typing import Any, NamedTuple


class Settings(NamedTuple):
    """How a problem is solved."""

    tolerance: float
    """Of the gap relative to the cost; ten times that for balances and voltage drops, in p.u."""
    most_iterations: int
    proximal: float
    """On the directions of P and Q, and PROXIMAL_OF_L |z|^2 times that on l: keeps the pivots of cones that carry no
    force from vanishing. It doesn't move the solution, as directions vanish there; too little and rounding spoils the
    balances, too much and steps shorten."""
    device_proximal: float
    """The same for injections without a quadratic cost, inside their bounds."""
    least_left: float
    """What the longest step leaves of the way to the boundary."""


class Workspace(NamedTuple):
    """Arrays [row, field] or [row, field, lane], aligned to a vector register."""

    bus: Any  # n_bus + 1 rows
    device: Any
    block: Any  # symmetric block and right-hand side that a bus hands to its line
    factor: Any
    solved: Any
    start: Any  # [field, bus], for one problem


class Tree(NamedTuple):
    """What all problems share: the feeder, and its flexible injections sorted by bus.

    Injections at bus j are first[j] to first[j + 1]: the active or, where `reactive`, the free reactive part of the
    problem's injection `origin`.
    """

    parent: Any
    r: Any
    x: Any
    rated: Any
    capacitor_pu: Any
    base_a: Any
    base_kva: float
    first: Any
    origin: Any
    reactive: Any


class Given(NamedTuple):
    """Problems, one per row, in kW, kvar, amperes and currency."""

    device: Any  # [row, field, injection]
    bus: Any  # [row, field, bus]
    source: Any  # [row] voltage of the substation


class Point(NamedTuple):
    """Primal and dual answers in p.u.: one per row, or one that every row overwrites."""

    bus: Any  # [row, field, bus]
    device: Any  # [row, field, injection sorted by bus]
    is_lossless: Any  # [row] whether lossless flows took part


class Loss(NamedTuple):
    """Gradient of a loss with respect to the answers, in the units of `OpfSolution`."""

    device: Any  # [OF_DEVICES, row, injection]
    bus: Any  # [OF_BUSES before the multipliers, row, bus]


class Gradient(NamedTuple):
    """Gradient of a loss with respect to the problems, in the units and with the fields of `Given`."""

    device: Any  # [field, row, injection]
    bus: Any  # [field, row, bus]
    source: Any  # [row]


class Answer(NamedTuple):
    """Answers, one per row, in the units of `OpfSolution`, and how good they are."""

    device: Any  # [OF_DEVICES, row, injection]
    bus: Any  # [OF_BUSES, row, bus]
    row: Any  # [FOUND_, row]
    status: Any  # [row] OpfStatus
    iterations: Any  # [row]
