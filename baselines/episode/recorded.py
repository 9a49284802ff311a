"""Recorded episodes: what agents of the market saw, did and were paid, for whoever learns without the market."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int

from peergrid.grid.errors import InvalidDataset
from peergrid.grid.parts import resolve

# Named as parts are, so that the library is missed by whoever reads or writes, and by nobody else.
READERS = {"minari": "peergrid.baselines.adapters.minari:read_dataset"}
WRITERS = {"minari": "peergrid.baselines.adapters.minari:write_dataset"}


@dataclass(frozen=True, eq=False, kw_only=True)
class Episodes:
    """Whole days, each of one slot: a microgrid, or the controller of all.

    `policy` is the place in a list of names, `day` the number of the day drawn, `slot` that of the microgrid.
    """

    seen: Float32[np.ndarray, "episode boundary entry"]
    actions: Float32[np.ndarray, "episode time number"]
    rewards: Float32[np.ndarray, "episode time"]
    policy: Int[np.ndarray, " episode"]
    day: Int[np.ndarray, " episode"]
    slot: Int[np.ndarray, " episode"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Dataset:
    """Recorded episodes, and what is known of them: scenario, predictor, player, policies, seed, version."""

    episodes: Episodes
    about: Mapping[str, Any]

    @property
    def terminates(self) -> bool:
        """Whether a day ends in itself, rather than being cut."""
        return bool(self.about["terminates"])

    def chosen(self, policies: Sequence[str]) -> Episodes:
        """The episodes of these policies; of all where none is named.

        Raises:
            InvalidDataset: One of them is not in it.
        """
        known = list(self.about["policies"])
        missing = [name for name in policies if name not in known]
        if missing:
            raise InvalidDataset(f"the data set has no episodes of {', '.join(missing)}; it has {', '.join(known)}")
        kept = np.isin(self.episodes.policy, [known.index(name) for name in policies or known])
        return Episodes(**{name: getattr(self.episodes, name)[kept] for name in Episodes.__dataclass_fields__})


def read_dataset(path: str | Path) -> Dataset:
    """The data set in a folder that `record` wrote, or in one below it.

    Raises:
        InvalidDataset: There is none, or more than one, or it is damaged, or not recorded here.
        MissingLibrary: Minari is not installed.
    """
    read: Callable[[Path], Dataset] = resolve("minari", "format", READERS)
    return read(Path(path))
