"""Errors that peergrid raises on bad input. A solve that fails is a status on its answer, not an error."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class PeergridError(ValueError):
    """Base of every error that peergrid raises on purpose."""


class UnknownName(PeergridError):
    """A scenario, feeder, mechanism, predictor or policy was asked for by a name that nothing has."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        names = sorted(known)
        close = get_close_matches(name, names, n=1)
        guess = f" Did you mean {close[0]!r}?" if close else ""
        super().__init__(f"no {kind} is named {name!r}.{guess} Known: {', '.join(names)}.{' ' + hint if hint else ''}")


class InvalidFeeder(PeergridError):
    """Feeder data that describe no radial network; the message lists every fault."""


class InvalidQuery(PeergridError):
    """A DSO query or OPF problem whose arrays have wrong shapes, NaN, or crossed bounds."""


class InvalidProfiles(PeergridError):
    """Profiles with missing columns, NaN, or values out of range; the message lists every fault."""


class InvalidScenario(PeergridError):
    """A scenario whose numbers contradict each other; the message lists every fault."""


class InvalidDataset(PeergridError):
    """A data set that is missing, damaged, made with other settings, or can't be written."""


class InvalidCheckpoint(PeergridError):
    """A file of weights that is missing, damaged, or made for another network or model."""


class InvalidAction(PeergridError):
    """An action of the wrong shape, or with NaN."""


class InvalidContracts(PeergridError):
    """Contracts of a mechanism that the settlement can't count on; the message lists every fault."""


class MissingLibrary(ModuleNotFoundError, PeergridError):
    """A module that needs a library that is not installed; the message says how to install it."""


class CannotFilm(PeergridError):
    """A film of a kind that is not known, without pictures, or for which a program is missing."""


def raise_faults(error: type[PeergridError], what: str, faults: list[str]) -> None:
    """Raise `error` naming every fault at once, or return if there is none."""
    if faults:
        raise error(f"{what}: " + "; ".join(faults))
