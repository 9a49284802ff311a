"""What the exact DSO answers: questions and answers as the columns of one table."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from peergrid.grid.dso import DsoQuery, OpfDso
from peergrid.surrogate.questions import QUESTION, Questions


@dataclass(frozen=True, eq=False, kw_only=True)
class Samples:
    """Questions to the exact DSO and its answers, one per row: the columns of the data set, in float32."""

    hour: Int[np.ndarray, " row"]
    load_kw: Float[np.ndarray, "row bus"]
    load_kvar: Float[np.ndarray, "row bus"]
    proposed_kw: Float[np.ndarray, "row trade"]
    lmp_per_kwh: Float[np.ndarray, " row"]
    lambda_corr_per_kw2h: Float[np.ndarray, " row"]
    c_ls_per_kw2h: Float[np.ndarray, " row"]
    accepted_kw: Float[np.ndarray, "row trade"]
    shed_kw: Float[np.ndarray, "row bus"]
    price_per_kwh: Float[np.ndarray, "row bus"]
    status: Int[np.ndarray, " row"]

    def __len__(self) -> int:
        return len(self.hour)

    @property
    def questions(self) -> Questions[np.ndarray]:
        """What was asked."""
        return Questions(*[getattr(self, name) for name in QUESTION])

    def rows(self, chosen: Any) -> Samples:
        """Some of the rows, by an index."""
        return Samples(**{f.name: getattr(self, f.name)[chosen] for f in fields(self)})

    def digest(self) -> str:
        """SHA-256 of all arrays."""
        found = hashlib.sha256()
        for f in fields(self):
            values = np.ascontiguousarray(getattr(self, f.name))
            found.update(f"{f.name} {values.dtype.str} {values.shape}\n".encode())
            found.update(values.tobytes())
        return found.hexdigest()


def concatenate(parts: Sequence[Samples]) -> Samples:
    """The rows of several, in order."""
    return Samples(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Samples)})


def label(dso: OpfDso, hour: Int[np.ndarray, " row"], questions: Questions[np.ndarray]) -> Samples:
    """Questions with the answers of the DSO.

    Questions are rounded to float32 before they are asked, so that the answers belong to the questions as stored.
    """
    kept = questions.each(lambda values: values.astype(np.float32))
    exact = kept.each(lambda values: values.astype(float))
    coefficients = {name: getattr(exact, name)[:, None] for name in ("lambda_corr_per_kw2h", "c_ls_per_kw2h")}
    response = dso(
        DsoQuery(
            load_kw=exact.load_kw,
            load_kvar=exact.load_kvar,
            proposed_kw=exact.proposed_kw,
            lmp_per_kwh=exact.lmp_per_kwh,
            penalty=replace(dso.penalty, **coefficients),
        )
    )
    answers = ("accepted_kw", "shed_kw", "price_per_kwh")
    return Samples(
        hour=hour.astype(np.int8),
        **kept.columns(),
        **{name: getattr(response, name).astype(np.float32) for name in answers},
        status=response.status.astype(np.int8),
    )
