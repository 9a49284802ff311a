"""Which days episodes are played on, and who draws them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

import numpy as np
from gymnasium.utils.seeding import np_random

from peergrid.envs.common.profiles import Day, DayShape, ProfileSource, TableProfiles, evaluation_days, training_days
from peergrid.grid.errors import PeergridError, UnknownName

EVALUATION_DAY = "evaluation_day"
EVALUATION = 1  # keeps the draws of held-out days apart from those of any seed


class Episodes:
    """Draws the days of every row of a batch; row i of a seeded reset draws with seed + i."""

    def __init__(
        self,
        source: ProfileSource,
        shape: DayShape,
        intervals: int,
        num_envs: int,
        seed: int,
        season: tuple[int, int] = (0, 0),
        beside: Callable[[np.random.Generator], tuple[Any, ...]] | None = None,
    ) -> None:
        """
        Args:
            shape: What is drawn: the episode and what its forecasts look ahead.
            intervals: Of the episode alone.
            seed: Decides held-out days, together with their numbers.
            season: First day that is drawn, and how many from there on, around the year's end; all, if 0.
            beside: What is drawn for each day's devices, from the generator that drew the day.
        """
        self.source, self.shape, self.seed, self.season, self.beside = source, shape, seed, season, beside
        self.span = -(-intervals // shape.intervals_per_day)
        self.generators: list[np.random.Generator] = [np_random()[0] for _ in range(num_envs)]
        self._drew = list(self.generators)  # that drew each row's day: a held-out day has one of its own

    def draw(self, places: Sequence[int], seed: int | None, options: Mapping[str, Any] | None) -> list[Day]:
        """A day for each of these rows.

        Args:
            seed: Row i draws with seed + i; None goes on with the generators as they are.
            options: `{"evaluation_day": k}` gives held-out day k to row 0, k + 1 to row 1 and so on: the same day
                whenever it is asked for, whatever the seed. Other keys are not read, but those that look like a
                misspelling of this one are refused.
        """
        for key in map(str, options or {}):
            if key != EVALUATION_DAY and get_close_matches(key, [EVALUATION_DAY]):
                raise UnknownName("option of reset", key, [EVALUATION_DAY])
        if seed is not None:
            for i in places:
                self.generators[i] = np_random(_whole_number(seed, "seed") + i)[0]
        first = (options or {}).get(EVALUATION_DAY)
        if first is None:
            generators = [self.generators[i] for i in places]
            days = self._of_season(training_days(self.source.n_days, span=self.span))
            chosen = [days[int(rng.integers(len(days)))] for rng in generators]
        else:
            days = self._of_season(evaluation_days(self.source.n_days))
            numbers = [_whole_number(first, "options['evaluation_day']") + i for i in places]
            if isinstance(self.source, TableProfiles) and numbers[-1] >= len(days):
                raise PeergridError(
                    f"evaluation day {numbers[-1]} was asked for, and the profiles hold {len(days)}, which would repeat"
                )
            chosen = [days[number % len(days)] for number in numbers]
            streams = [np.random.SeedSequence(self.seed, spawn_key=(EVALUATION, k)) for k in numbers]
            generators = [np.random.default_rng(stream) for stream in streams]
        for i, rng in zip(places, generators, strict=True):
            self._drew[i] = rng
        drawn = [self.source.draw(self.shape, day, rng) for day, rng in zip(chosen, generators, strict=True)]
        if self.beside is None:
            return drawn
        return [replace(day, devices=self.beside(rng)) for day, rng in zip(drawn, generators, strict=True)]

    def spawn(self, places: Sequence[int]) -> list[np.random.Generator]:
        """A generator for each of these rows, for what is random beside its day; fixed by what fixed the day."""
        return [self._drew[i].spawn(1)[0] for i in places]

    def row(self, i: int) -> Episodes:
        """Those of row i alone, which go on with its generators."""
        alone = Episodes(self.source, self.shape, 1, 1, self.seed, self.season, self.beside)
        alone.span, alone.generators, alone._drew = self.span, [self.generators[i]], [self._drew[i]]
        return alone

    def _of_season(self, days: Sequence[int]) -> list[int]:
        first, n = self.season
        found = [day for day in days if (day - first) % self.source.n_days < (n or self.source.n_days)]
        if not found:
            raise PeergridError(
                f"no day is left to draw from day {first} and the {n} days from there on: the profiles have "
                f"{self.source.n_days}, and every tenth is kept for evaluation"
            )
        return found


def _whole_number(value: Any, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
        raise PeergridError(f"{what} is {value!r}, not a whole number from 0")
    return int(value)
