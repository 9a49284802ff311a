"""What the DSO answers to many questions: drawn from documented distributions, solved exactly, kept as Parquet.

A data set is a folder with a folder per subset of shards, and a manifest. A shard depends on the settings, its subset
and its number alone, so it is the same whoever makes it, with however many workers, and after any interruption.
`peergrid.surrogate.sampling` says what is drawn.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float
from tqdm import tqdm

from peergrid.envs.p2p_trading.scenario import Scenario, load_scenario
from peergrid.grid.errors import InvalidDataset
from peergrid.grid.files import remove_unfinished, write_whole
from peergrid.surrogate.questions import network_digest
from peergrid.surrogate.samples import Samples, concatenate
from peergrid.surrogate.sampling import FORMAT, PROPOSALS, Sampling, Shard, draw, draw_questions, operator_of

MANIFEST = "manifest.json"


def make_dataset(
    folder: Path,
    scenario: str | Scenario,
    subsets: dict[str, Sampling],
    *,
    seed: int = 0,
    shard_days: int = 100,
    workers: int = 0,
) -> dict[str, Any]:
    """Make the shards that are missing, with a progress bar, and the manifest; return what it says.

    Shards are written whole or not at all, so this can be stopped at any moment and called again. The work is handed to
    joblib: within `joblib.parallel_config("dask")` a cluster that shares the folder does it.

    Args:
        workers: Processes on this machine; 0 for one per core.

    Raises:
        InvalidDataset: A shard of other settings or a damaged one is in the way, or the disk is full.
    """
    chosen = load_scenario(scenario)
    shards = [
        shard for name, sampling in subsets.items() for shard in _shards(chosen, name, sampling, seed, shard_days)
    ]
    tasks = (joblib.delayed(_keep)(folder, shard) for shard in shards)
    made = joblib.Parallel(n_jobs=workers or -1, return_as="generator")(tasks)
    with tqdm(total=len(shards), desc="data set", unit="shard", disable=None, leave=False) as bar:
        found = {}
        for shard, summary in zip(shards, made, strict=True):
            found[_path(Path(), shard).as_posix()] = summary
            bar.update()
    held = {name: sum(found[at]["samples"] for at in found if at.startswith(f"{name}/")) for name in subsets}
    manifest = {
        "format": FORMAT,
        "peergrid": version("peergrid"),
        "scenario": chosen.name,
        "feeder": chosen.network.feeder,
        "network_sha256": network_digest(operator_of(chosen)),
        "solver": chosen.dso.solver,
        "seed": seed,
        "proposals": PROPOSALS,
        "subsets": {name: asdict(sampling) for name, sampling in subsets.items()},
        "samples": held,
        "not_optimal": sum(s["not_optimal"] for s in found.values()),
        "sha256": hashlib.sha256("".join(s["sha256"] for s in found.values()).encode()).hexdigest(),
        "shards": found,
    }
    text = json.dumps(manifest, indent=2) + "\n"
    write_whole(folder / MANIFEST, lambda path: path.write_text(text, encoding="utf-8"), InvalidDataset)
    for place in (folder, *(folder / name for name in subsets)):
        remove_unfinished(place)
    return manifest


def load_subset(folder: Path, subset: str) -> Samples:
    """All samples of a subset that the manifest names.

    Raises:
        InvalidDataset: There is no such subset, or the manifest or a shard is missing or damaged.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        subsets = list(manifest["subsets"])
        digests = {at: shard["sha256"] for at, shard in manifest["shards"].items() if at.startswith(f"{subset}/")}
        n_samples = dict(manifest["samples"])
    except FileNotFoundError:
        raise InvalidDataset(f"{folder} holds no data set: there is no {MANIFEST}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidDataset(f"{folder / MANIFEST} is damaged: {error!r}") from None
    if subset not in subsets:
        raise InvalidDataset(f"{folder} has no subset {subset!r}, only {', '.join(subsets)}")
    parts = []
    for at, digest in digests.items():
        samples, _ = read_shard(folder / at)
        if samples.digest() != digest:
            raise InvalidDataset(f"{folder / at} is not what the manifest names: make the data set anew")
        parts.append(samples)
    n_found = sum(map(len, parts))
    if n_found == 0 or n_found != n_samples.get(subset):
        told = f"its shards of {subset!r} hold {n_found} samples, not {n_samples.get(subset)}"
        raise InvalidDataset(f"{folder / MANIFEST} is damaged: {told}")
    return concatenate(parts)


def _shards(scenario: Scenario, subset: str, sampling: Sampling, seed: int, shard_days: int) -> list[Shard]:
    starts = range(0, sampling.days, shard_days)
    return [
        Shard(scenario, subset, sampling, seed, number, min(shard_days, sampling.days - start))
        for number, start in enumerate(starts)
    ]


def _path(folder: Path, shard: Shard) -> Path:
    return folder / shard.subset / f"shard-{shard.number:05d}.parquet"


def _keep(folder: Path, shard: Shard) -> dict[str, Any]:
    """Make a shard unless it is there; say what it holds."""
    path = _path(folder, shard)
    if path.exists():
        samples, kept = read_shard(path)
        if kept != shard.fingerprint():
            raise InvalidDataset(f"{path} was made with other settings: choose another folder, or delete it")
    else:
        samples = draw(shard)
        write_whole(path, lambda unfinished: _write(unfinished, samples, shard.fingerprint()), InvalidDataset)
    bad = int((samples.status != 0).sum())
    return {"samples": len(samples), "not_optimal": bad, "sha256": samples.digest()}


def _write(path: Path, samples: Samples, fingerprint: str) -> None:
    columns = {}
    for f in fields(samples):
        values = getattr(samples, f.name)
        flat = pa.array(values.reshape(-1))
        columns[f.name] = flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    named = {"peergrid": fingerprint, "sha256": samples.digest()}
    pq.write_table(pa.table(columns).replace_schema_metadata(named), path, compression="zstd")


def read_shard(path: Path) -> tuple[Samples, str]:
    """The samples of a shard, and the fingerprint of its settings.

    Raises:
        InvalidDataset: It is missing or damaged.
    """
    damaged = f"{path} is damaged: delete it and run again, and it is made anew"
    try:
        table = pq.read_table(path)
        known = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        samples = Samples(**{f.name: _array(table.column(f.name).combine_chunks()) for f in fields(Samples)})
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise InvalidDataset(f"{damaged} ({error})") from None
    if known.get("sha256") != samples.digest():
        raise InvalidDataset(damaged)
    return samples, known.get("peergrid", "")


def _array(column: pa.Array) -> np.ndarray:
    is_list = pa.types.is_fixed_size_list(column.type)
    values = (column.flatten() if is_list else column).to_numpy(zero_copy_only=False)
    return values.reshape(-1, column.type.list_size) if is_list else values


def solar_factors(folder: Path, scenario: Scenario, subset: str) -> Float[np.ndarray, "row trade"]:
    """The PV drawn for each microgrid over its day's own, in every sample of a subset; NaN where the day has none.

    It shapes proposals and is no part of a question, so a data set does not keep it: it is drawn again, as it was.

    Raises:
        InvalidDataset: There is no such subset, it is damaged, or it is not what this version draws in the scenario.
    """
    kept = load_subset(folder, subset)
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    known: dict[str, Any] = manifest["subsets"][subset]
    known |= {name: tuple(values) for name, values in known.items() if isinstance(values, list)}
    sampling = Sampling(**known)
    held = [shard["samples"] for at, shard in manifest["shards"].items() if at.startswith(f"{subset}/")]
    days = [n * sampling.days // len(kept) for n in held]
    drawn = [
        draw_questions(Shard(scenario, subset, sampling, manifest["seed"], number, n)) for number, n in enumerate(days)
    ]
    proposed_kw = np.concatenate([questions.proposed_kw for _, questions, _ in drawn])
    # Another processor may round otherwise.
    if proposed_kw.shape != kept.proposed_kw.shape or not np.allclose(proposed_kw, kept.proposed_kw, 1e-4, 1e-3):
        raise InvalidDataset(f"{folder} holds other questions than are drawn for {scenario.name}: make it anew")
    return np.concatenate([solar_factor for *_, solar_factor in drawn])
