"""A trained transformer as a file of numbers: written, checked and read.

What is shipped for a scenario stands in `checkpoints/<scenario>/`: weights, the manifest of the data set that they were
trained on, and the metrics of the report.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from peergrid.grid.dso import OpfDso
from peergrid.grid.errors import InvalidCheckpoint
from peergrid.grid.files import write_whole
from peergrid.surrogate.model import FEATURES, DsoTransformer, ModelConfig
from peergrid.surrogate.questions import network_digest

SHIPPED = Path(__file__).parent / "checkpoints"
WEIGHTS = "model.safetensors"
FORMAT = "peergrid surrogate 2"


def shipped_file(dso: OpfDso) -> Path | None:
    """The file of weights that are shipped for an operator, if there is one."""
    digest = network_digest(dso)
    files = [SHIPPED / name / WEIGHTS for name in shipped_scenarios()]
    return next((file for file in files if _metadata(file)["network"] == digest), None)


def shipped_scenarios() -> tuple[str, ...]:
    """The scenarios that a trained transformer is shipped for."""
    return tuple(sorted(path.parent.name for path in SHIPPED.glob(f"*/{WEIGHTS}")))


def save_model(
    path: Path, model: DsoTransformer, dso: OpfDso, rating_kw: Float[np.ndarray, " trade"], about: Mapping[str, Any]
) -> None:
    """Write weights, normalisation and intervals as numbers, with what they are for; nothing in it can run."""
    metadata = {
        "format": FORMAT,
        "config": json.dumps(asdict(model.config)),
        "features": json.dumps(FEATURES),
        "network": network_digest(dso),
        "feeder": dso.feeder.name,
        "rating_kw": json.dumps(rating_kw.tolist()),
        "about": json.dumps(about),
    }
    tensors = {name: values.contiguous() for name, values in model.state_dict().items()}
    file = save(tensors, metadata | {"sha256": _digest(metadata["config"], tensors)})
    write_whole(path, lambda unfinished: unfinished.write_bytes(file), InvalidCheckpoint)


def load_model(path: Path, dso: OpfDso) -> DsoTransformer:
    """The model in a file, for this operator.

    Raises:
        InvalidCheckpoint: The file is missing, damaged, or for another network or version.
    """
    metadata = _metadata(path)
    if metadata["network"] != network_digest(dso):
        raise InvalidCheckpoint(
            f"{path} was trained for another network: feeder {metadata['feeder']!r} with its trades, limits, "
            f"generators and penalties, not this {dso.feeder.name!r}"
        )
    try:
        model = DsoTransformer(dso, ModelConfig(**json.loads(metadata["config"])))
    except (KeyError, TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        raise InvalidCheckpoint(f"{path} describes no model: {error}") from None
    try:
        with safe_open(path, framework="pt") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        model.load_state_dict(found)
    except (SafetensorError, RuntimeError, OSError) as error:
        raise InvalidCheckpoint(f"{path} can't be read: {error}") from None
    bad = [name for name, values in found.items() if not torch.isfinite(values).all()]
    if bad:
        raise InvalidCheckpoint(f"{path} holds numbers that are not finite: {', '.join(bad)}")
    if metadata["sha256"] != _digest(metadata["config"], model.state_dict()):
        raise InvalidCheckpoint(f"{path} is damaged: its numbers are not those that were written")
    return model


def load_rating_kw(path: Path, dso: OpfDso) -> Float[np.ndarray, " trade"]:
    """The ratings of the microgrids that the model in a file was trained on.

    Raises:
        InvalidCheckpoint: The file is missing or damaged.
    """
    try:
        rating_kw = np.array(json.loads(_metadata(path)["rating_kw"]), dtype=float)
    except (ValueError, TypeError) as error:
        raise InvalidCheckpoint(f"{path} is damaged: its rating_kw can't be read ({error})") from None
    if rating_kw.shape != dso.trade_bus.shape or not np.isfinite(rating_kw).all():
        raise InvalidCheckpoint(f"{path} is damaged: its rating_kw are not {len(dso.trade_bus)} numbers")
    return rating_kw


def _digest(config: str, tensors: Mapping[str, torch.Tensor]) -> str:
    found = hashlib.sha256(config.encode())
    for name in sorted(tensors):
        found.update(name.encode() + tensors[name].cpu().numpy().tobytes())
    return found.hexdigest()


def _metadata(path: Path) -> dict[str, str]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise InvalidCheckpoint(f"{path} can't be read as safetensors: {error}") from None
    if metadata.get("format") != FORMAT:
        raise InvalidCheckpoint(f"{path} is no file of ours: its format is {metadata.get('format')!r}, not {FORMAT!r}")
    lost = [name for name in ("config", "features", "network", "feeder", "rating_kw", "sha256") if name not in metadata]
    if lost:
        raise InvalidCheckpoint(f"{path} is damaged: it does not say its {', '.join(lost)}")
    if metadata["features"] != json.dumps(FEATURES):
        raise InvalidCheckpoint(f"{path} was trained on other features, by another version: train it anew")
    return metadata
