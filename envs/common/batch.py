"""A batch of episodes of one market, played side by side: who owns states, days and seeds, and when rows begin anew."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from importlib import import_module
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from peergrid.envs.common.entries import Entry, bounds, clipped
from peergrid.envs.common.episodes import Episodes
from peergrid.envs.common.profiles import Day
from peergrid.envs.common.rows import rows_of, unless_all, with_rows
from peergrid.grid.errors import PeergridError

StateT = TypeVar("StateT")
DaysT = TypeVar("DaysT")
NowT = TypeVar("NowT")
OutcomeT = TypeVar("OutcomeT")
BatchT = TypeVar("BatchT", bound="Batch[Any, Any, Any, Any]")


class Batch(ABC, Generic[StateT, DaysT, NowT, OutcomeT]):
    """Episodes of one market on one scenario, stepped together; row i of a seeded reset draws with seed + i.

    Every environment is a view of it, PettingZoo's of one row. Abstract: a market says how a day begins, what an
    interval brings, what is seen, and when an episode is over; its step goes through `_play`.

    Attributes:
        state: What one step hands to the next, all rows; None before the first reset. So it is with `days`.
        foretold: What was predicted as each day began, in a market that predicts then.
        seen: What the agents of all rows see.
        outcome: What happened in the last step, in the rows that took part, which `played` marks.
    """

    viewer: ClassVar[str]  # the module that draws the last step
    metadata: ClassVar[dict[str, Any]]  # what Gymnasium and PettingZoo ask of pictures
    scenario: Any
    params: Any

    def __init__(
        self, entries: tuple[Entry, ...], state_entries: tuple[Entry, ...], episodes: Episodes, num_envs: int
    ) -> None:
        self.entries, self.state_entries = entries, state_entries
        self._bounds, self._state_bounds = bounds(entries), bounds(state_entries)
        self.episodes, self.num_envs = episodes, num_envs
        self.state: StateT | None = None
        self.days: DaysT | None = None
        self.foretold: Any = None
        self.seen = np.zeros((num_envs, self.n_agent, len(entries)), dtype=np.float32)
        self.outcome: OutcomeT | None = None
        self.played = np.zeros(num_envs, dtype=bool)
        self._now: tuple[StateT, DaysT, Any, NowT] | None = None

    # --- what a market fills in ---------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def agents(self) -> list[str]:
        """What the agents are called."""

    @property
    def terminates(self) -> bool:
        """Whether episodes end in themselves, rather than being cut."""
        return False

    @abstractmethod
    def days_of(self, drawn: Sequence[Day]) -> DaysT:
        """Days drawn, as they are played here."""

    @abstractmethod
    def _first_state(self, days: DaysT) -> StateT:
        """The state in which each day begins."""

    def _foretell(self, state: StateT, days: DaysT) -> Any:
        """What is predicted of each day as it begins: a dataclass of arrays, or None where nothing is."""
        return None

    @abstractmethod
    def _current(self, state: StateT, days: DaysT) -> NowT:
        """What the interval that begins brings."""

    @abstractmethod
    def _observe(self, state: StateT, days: DaysT, now: NowT, foretold: Any) -> Float[np.ndarray, "batch agent entry"]:
        """What the agents see, not clipped to its range yet."""

    @abstractmethod
    def _global_state(self, state: StateT, days: DaysT) -> Float[np.ndarray, "batch entry_of_state"]:
        """The global state that goes with `seen`, not clipped to its range yet."""

    @abstractmethod
    def _n_steps(self, state: StateT) -> Int[np.ndarray, " batch"]:
        """How many steps each episode has had."""

    @abstractmethod
    def _is_over(self, state: StateT) -> Bool[np.ndarray, " batch"]:
        """The rows whose episode is over."""

    @abstractmethod
    def step(
        self, actions: Float[np.ndarray, "batch agent number"], rows: Bool[np.ndarray, " batch"] | None = None
    ) -> tuple[Float32[np.ndarray, "batch agent entry"], OutcomeT]:
        """Play one step in every row, or in the marked ones; what is seen next, and what happened where it played."""

    # --- what is the same in every market -----------------------------------------------------------------------------

    @property
    def n_agent(self) -> int:
        return len(self.params.agent_bus)

    @property
    def is_over(self) -> Bool[np.ndarray, " batch"]:
        """The rows whose episode is over."""
        return self._is_over(self.running()[0])

    def running(self) -> tuple[StateT, DaysT]:
        """State and days of the episodes that run.

        Raises:
            PeergridError: None has begun.
        """
        if self.state is None or self.days is None:
            raise PeergridError("no episode has begun: call reset() first")
        return self.state, self.days

    def now(self) -> NowT:
        """What the interval that begins brings to every row; kept until state, days or parameters are others."""
        state, days = self.running()
        kept = self._now
        if kept is None or kept[0] is not state or kept[1] is not days or kept[2] is not self.params:
            kept = self._now = (state, days, self.params, self._current(state, days))
        return kept[3]

    def reset(
        self,
        seed: int | None = None,
        options: Mapping[str, Any] | None = None,
        rows: Bool[np.ndarray, " batch"] | None = None,
    ) -> Float32[np.ndarray, "batch agent entry"]:
        """Begin an episode in every row, or in the marked ones, and return what the agents of all rows see.

        Args:
            seed: Row i draws with seed + i; None goes on with the generators as they are.
            options: `{"evaluation_day": k}` plays held-out day k in row 0, k + 1 in row 1 and so on: the same day
                whenever it is asked for, whatever the seed. Other keys are not read.
            rows: Where an episode begins; elsewhere nothing changes.
        """
        rows = unless_all(rows)
        if rows is not None:
            self.running()  # the other rows go on with theirs
        places = list(range(self.num_envs)) if rows is None else np.flatnonzero(rows).tolist()
        return self.begin(self.days_of(self.episodes.draw(places, seed, options)), rows)

    def begin(
        self, days: DaysT, rows: Bool[np.ndarray, " batch"] | None = None, copies: int = 1
    ) -> Float32[np.ndarray, "batch agent entry"]:
        """Begin an episode on days given rather than drawn, and return what the agents see.

        Args:
            days: One for each (marked) row; with `copies`, for each so many rows that follow one another.
        """
        state = self._first_state(days)
        foretold = self._foretell(state, days)
        if copies > 1:  # which are foretold the same
            each = np.repeat(np.arange(len(self._n_steps(state))), copies)
            state, days, foretold = rows_of(state, each), rows_of(days, each), rows_of(foretold, each)
        self._put(state, days, foretold, rows)
        if rows is None:
            self.outcome = None
        return self.seen

    def _play(
        self,
        rows: Bool[np.ndarray, " batch"] | None,
        advance: Callable[[StateT, DaysT, NowT, Any], tuple[StateT, OutcomeT]],
    ) -> tuple[Float32[np.ndarray, "batch agent entry"], OutcomeT]:
        """Advance every row, or the marked ones.

        Args:
            advance: From state, days and interval of these rows, and which they are (None for all), to the state after.

        Returns:
            What the agents of all rows see next, and what happened in the rows that played.

        Raises:
            PeergridError: No episode has begun, or it is over.
        """
        (state, days), rows = self.running(), unless_all(rows)
        state, days, foretold = rows_of(state, rows), rows_of(days, rows), rows_of(self.foretold, rows)
        if self._is_over(state).any():
            raise PeergridError("the episode is over: call reset() before step()")
        after, outcome = advance(state, days, rows_of(self.now(), rows), rows)
        self._put(after, days, foretold, rows)
        self.outcome = outcome
        self.played = np.ones(self.num_envs, dtype=bool) if rows is None else rows
        return self.seen, outcome

    def _put(self, state: StateT, days: DaysT, foretold: Any, rows: Bool[np.ndarray, " batch"] | None) -> None:
        """Let these be all rows, or the marked ones, and look at them."""
        now = self._current(state, days)
        seen = clipped(self._observe(state, days, now, foretold), self._bounds)
        self._now = (state, days, self.params, now) if rows is None else None
        if rows is not None:
            old_state, old_days = self.running()
            state, days = with_rows(old_state, rows, state), with_rows(old_days, rows, days)
            foretold, seen = with_rows(self.foretold, rows, foretold), with_rows(self.seen, rows, seen)
        self.state, self.days, self.foretold, self.seen = state, days, foretold, seen

    def observe(self) -> Float32[np.ndarray, "batch agent entry"]:
        """What the agents see now; after a reset or a step it is `seen`, and need not be computed again."""
        state, days = self.running()
        return clipped(self._observe(state, days, self.now(), self.foretold), self._bounds)

    def global_state(self) -> Float32[np.ndarray, "batch entry_of_state"]:
        """The global state of every row, for centralised critics."""
        return clipped(self._global_state(*self.running()), self._state_bounds)

    def row(self: BatchT, i: int) -> BatchT:
        """Row i as it is now, as a batch of its own: to look at, as steps of either are not seen by the other."""
        state, days = self.running()
        this, alone = slice(i, i + 1), copy(self)
        alone.num_envs, alone.episodes = 1, self.episodes.row(i)
        alone.state, alone.days, alone.seen = rows_of(state, this), rows_of(days, this), self.seen[this]
        alone.foretold = rows_of(self.foretold, this)
        # An outcome from before the reset is that of another day.
        alone.played = self.played[this] & (self._n_steps(alone.state) > 0)
        place = int(self.played[:i].sum())
        has_outcome = self.outcome is not None and bool(alone.played.all())
        alone.outcome = rows_of(self.outcome, slice(place, place + 1)) if has_outcome else None
        return alone

    def spawn(self, rows: Bool[np.ndarray, " batch"]) -> list[np.random.Generator]:
        """A generator for each marked row, for what is random beside its day; seed or held-out day fix it likewise."""
        return self.episodes.spawn(np.flatnonzero(rows).tolist())

    def picture(self, render_mode: str | None) -> Any:
        """The last step of a batch of one row, as a table ("ansi") or as a picture ("rgb_array")."""
        if render_mode is None:
            return None
        viewer = import_module(self.viewer)  # matplotlib is slow to import, and few runs draw
        draw = viewer.draw_ansi if render_mode == "ansi" else viewer.draw_rgb
        return draw(self.params, *self.running(), self.outcome)
