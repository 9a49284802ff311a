"""Recorded episodes in Minari's format, written and read."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from peergrid.baselines.adapters import needs
from peergrid.baselines.episode.recorded import Dataset, Episodes
from peergrid.envs.common.entries import Entry, box
from peergrid.grid.errors import InvalidDataset

with needs("Minari", "data"):
    import h5py  # noqa: F401, what Minari writes with, and asks for late
    import minari

METADATA, OWN_KEY, ROOT = "metadata.json", "peergrid", "MINARI_DATASETS_PATH"
INDEXED = ("policy", "day", "slot")


def write_dataset(
    folder: Path, entries: Sequence[Entry], n_numbers: int, parts: Iterable[Episodes], about: Mapping[str, Any]
) -> Path:
    """Write a data set part by part, and return the folder that holds it.

    Args:
        folder: Where Minari is to look for data sets, by the variable MINARI_DATASETS_PATH.
        about: JSON, with "scenario", "player", "policies" and "terminates".
    """
    name = "-".join((re.sub(r"[^A-Za-z0-9_]+", "_", about["scenario"]), about["player"], "v0"))
    dataset = None
    with _looking_in(folder), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that no author, link or environment is named
        for part in parts:
            buffers = list(_buffers(part, bool(about["terminates"])))
            if dataset is not None:
                dataset.update_dataset_from_buffer(buffers)
                continue
            dataset = minari.create_dataset_from_buffers(
                f"peergrid/{name}",
                buffers,
                observation_space=box(entries),
                action_space=spaces.Box(-1.0, 1.0, (n_numbers,), np.float32),
                algorithm_name=", ".join(about["policies"]),
                description=f"Days of {about['scenario']}, each played by {len(about['policies'])} policies.",
                requirements=[f"peergrid=={about['version']}"],
            )
    if dataset is None:
        raise InvalidDataset("there is nothing to write: no policy, or no day")
    dataset.storage.update_metadata({OWN_KEY: dict(about)})
    return folder / Path(dataset.storage.data_path).relative_to(folder.resolve())


def _buffers(part: Episodes, terminates: bool) -> Iterator[Any]:
    n_episode, n_time = part.rewards.shape
    is_last = np.arange(n_time) == n_time - 1
    for i in range(n_episode):
        yield minari.data_collector.EpisodeBuffer(
            options={name: int(getattr(part, name)[i]) for name in INDEXED},
            observations=part.seen[i],
            actions=part.actions[i],
            rewards=part.rewards[i],
            terminations=is_last & terminates,
            truncations=is_last & (not terminates),
            infos={},
        )


@contextmanager
def _looking_in(folder: Path) -> Iterator[None]:
    """Minari writes where a variable of the environment says."""
    before = os.environ.get(ROOT)
    os.environ[ROOT] = str(folder.resolve())
    try:
        yield
    finally:
        if before is None:
            del os.environ[ROOT]
        else:
            os.environ[ROOT] = before


def read_dataset(path: Path) -> Dataset:
    """The data set in a folder that `record` wrote, or in one below it.

    Raises:
        InvalidDataset: There is none, or more than one, or it is damaged, or not recorded here.
    """
    found = sorted(path.rglob(METADATA))
    found = [file for file in found if (file.parent / "main_data.hdf5").is_file()]
    if len(found) != 1:
        what = "no data set" if not found else f"{len(found)} data sets"
        raise InvalidDataset(f"there is {what} in {str(path)!r}; python -m peergrid.baselines.record makes one")
    folder = found[0].parent
    try:
        about = _own(json.loads(found[0].read_text(encoding="utf-8")))
        stored = minari.MinariDataset(folder)
        each = list(stored)
        options = [m["options"] for m in stored.storage.get_episode_metadata(range(len(stored)))]
        episodes = Episodes(
            seen=np.stack([e.observations for e in each]),
            actions=np.stack([e.actions for e in each]),
            rewards=np.stack([e.rewards for e in each]),
            **{name: np.array([o[name] for o in options]) for name in INDEXED},
        )
    except (OSError, ValueError, KeyError, AssertionError) as error:
        raise InvalidDataset(f"the data set in {str(folder)!r} can't be read: {error}") from None
    return Dataset(episodes=episodes, about=about)


def _own(metadata: dict[str, Any]) -> dict[str, Any]:
    """What stands in our own metadata; others' may name an environment, which Minari would import to learn its spaces.

    Raises:
        ValueError: They are not ours.
    """
    about = metadata.get(OWN_KEY)
    is_ours = isinstance(about, dict) and {"observation_space", "action_space"} <= set(metadata)
    if not is_ours or {"env_spec", "eval_env_spec"} & set(metadata):
        raise ValueError("it was not recorded by peergrid, or not to its end")
    assert isinstance(about, dict)
    return about
