"""Which flexible injection is which device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int


@dataclass(frozen=True, eq=False, kw_only=True)
class DeviceLayout:
    """The columns of an operator's `Injections`: substation, generators, loads that can be shed, trades, in this order.

    Columns of loads are those of every bus but the root, whose own load is served whatever happens.
    """

    bus: Int[np.ndarray, " device"]
    has_free_q: Bool[np.ndarray, " device"]
    substation: int
    generators: slice
    sheddable: slice
    trades: slice

    @property
    def n_device(self) -> int:
        """How many there are."""
        return len(self.bus)

    @property
    def trade_bus(self) -> Int[np.ndarray, " trade"]:
        """Bus of each trade."""
        return self.bus[self.trades]

    @property
    def generator_bus(self) -> Int[np.ndarray, " gen"]:
        """Bus of each generator."""
        return self.bus[self.generators]


def device_layout(
    n_bus: int, generator_bus: Sequence[int], trade_bus: Sequence[int] | Int[np.ndarray, " trade"]
) -> DeviceLayout:
    """The layout of an operator; the substation and generators alone have reactive power of their own."""
    sheddable = np.arange(1, n_bus)
    parts = ([0], generator_bus, sheddable, trade_bus)
    bus = np.concatenate([np.asarray(part, dtype=int) for part in parts])
    _, after_generators, after_loads, end = np.cumsum([len(part) for part in parts]).tolist()
    return DeviceLayout(
        bus=bus,
        has_free_q=np.arange(end) < after_generators,
        substation=0,
        generators=slice(1, after_generators),
        sheddable=slice(after_generators, after_loads),
        trades=slice(after_loads, end),
    )
