"""The default solver: an interior-point method that factorises along the tree, for one problem or for a batch.

Here problems are laid out for `kernel/`, which has the iteration, and tried again where its answer falls short: an
answer is judged by the residuals of all optimality conditions, computed anew from what is returned. The derivation is
in docs/derivation.md.

The upper limit on lossless voltages costs time and seldom binds. So every problem is first solved with the limit on the
true voltage, which is the weaker one: where the lossless voltages and flows of that answer keep their limits too, it is
the answer. The other problems are solved again with all constraints.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from peergrid.grid.feeder import Feeder
from peergrid.grid.opf.kernel import (
    INACCURATE,
    INFEASIBLE_PROBLEM,
    LANES,
    OPTIMAL,
    Answer,
    Given,
    Gradient,
    Loss,
    Point,
    Settings,
    Tree,
    Workspace,
    adjoint,
    layout,
    solve,
)
from peergrid.grid.opf.problem import OF_INJECTIONS, OpfProblem, OpfSolution, UpperVoltage
from peergrid.grid.opf.table import plain

# Tried in turn, each on the problems that the attempts before did not solve to the accepted accuracy; the first nearly
# always suffices. A smaller proximal term helps where the relaxation is loose, a larger one where ratings bind lossless
# flows.
ATTEMPTS = (
    Settings(tolerance=1e-9, most_iterations=60, proximal=1e-4, device_proximal=1e-4, least_left=0.002),
    Settings(tolerance=1e-9, most_iterations=80, proximal=1e-3, device_proximal=1e-4, least_left=0.015),
    Settings(tolerance=1e-9, most_iterations=80, proximal=1e-4, device_proximal=1e-4, least_left=0.015),
    Settings(tolerance=1e-9, most_iterations=80, proximal=1e-6, device_proximal=1e-4, least_left=0.015),
    Settings(tolerance=1e-10, most_iterations=80, proximal=1e-7, device_proximal=1e-6, least_left=0.015),
    Settings(tolerance=1e-9, most_iterations=80, proximal=1e-4, device_proximal=1e-6, least_left=0.015),
    Settings(tolerance=1e-9, most_iterations=80, proximal=1e-2, device_proximal=1e-4, least_left=0.1),
)
# For derivatives the linear system of an optimum is solved once, so its regularisation is as small as rounding permits.
DIFFERENTIATION = Settings(tolerance=0.0, most_iterations=0, proximal=1e-7, device_proximal=1e-7, least_left=0.0)
# Eight problems side by side on more buses than this fall out of the processor's cache, and gain nothing.
MOST_BUSES_IN_LANES = 1500
REGISTER_BYTES = 64

# How far lossless voltages and flows may pass their limits before a problem is solved again with those limits.
LOSSLESS_SLACK = 1e-9


class InteriorPointOpf:
    """Solves optimal power flows of one shape: the same feeder, the same buses with flexible injections."""

    def __init__(
        self,
        feeder: Feeder,
        device_bus: Int[np.ndarray, " device"],
        has_free_q: Bool[np.ndarray, " device"],
        upper_voltage: UpperVoltage = UpperVoltage.LOSSLESS,
        threads: int = 1,
    ) -> None:
        """
        Args:
            device_bus: Bus of each flexible injection.
            has_free_q: Which of them have reactive power of their own, within bounds.
            threads: Among how many threads a batch is divided; answers don't depend on it.
        """
        self.feeder = feeder
        self.device_bus = device_bus
        self.has_free_q = has_free_q
        self.upper_voltage = upper_voltage
        self.threads = threads
        self.tree = _tree(feeder, device_bus, has_free_q)
        # By (in lanes, with lossless flows): a solve takes an idle workspace or makes one, so that none is shared.
        self._idle: dict[tuple[bool, bool], list[tuple[Workspace, Point]]] = {}

    def __reduce__(self) -> tuple[type[InteriorPointOpf], tuple[object, ...]]:
        # Workspaces are scratch, and stay behind.
        return type(self), (self.feeder, self.device_bus, self.has_free_q, self.upper_voltage, self.threads)

    def __call__(self, problem: OpfProblem) -> OpfSolution:
        """The optimum of every problem in the batch."""
        return self.solution(self._solve(_given(problem), None), problem.load_kw.shape[:-1])

    def solution(self, answer: Answer, batch: tuple[int, ...]) -> OpfSolution:
        """The answers in the shape of the problems."""
        # By field in the kernel, by problem outside; views, as only the axes change.
        of_devices, of_buses = (table.swapaxes(0, 1) for table in (answer.device, answer.bus))
        return OpfSolution(
            of_devices=of_devices.reshape(*batch, *of_devices.shape[1:]),
            of_buses=of_buses.reshape(*batch, *of_buses.shape[1:]),
            cost_per_hour=answer.row[layout.FOUND_COST].reshape(batch),
            status=answer.status.reshape(batch),
            iterations=answer.iterations.reshape(batch),
        )

    def solve(self, problem: OpfProblem) -> Solved:
        """The problems in rows, the answers, and the primal-dual points that these come from."""
        given = _given(problem)
        point = _points(self.tree, len(given.source))
        return Solved(given, point, self._solve(given, point))

    def _solve(self, given: Given, point: Point | None) -> Answer:
        n_row, n, n_device = len(given.source), self.feeder.n_bus, len(self.device_bus)
        answer = Answer(
            device=np.zeros((len(layout.OF_DEVICES), n_row, n_device)),
            bus=np.zeros((len(layout.OF_BUSES), n_row, n)),
            row=np.zeros((layout.FOUND_FIELDS, n_row)),
            status=np.zeros(n_row, dtype=int),
            iterations=np.zeros(n_row, dtype=int),
        )
        in_lanes = self._in_lanes(n_row)
        lossless = self.upper_voltage is UpperVoltage.LOSSLESS
        self._attempt(given, point, answer, np.arange(n_row), in_lanes, with_lossless=False)
        if lossless:
            is_open = (answer.row[layout.FOUND_EXCESS] > LOSSLESS_SLACK) & (answer.status != INFEASIBLE_PROBLEM)
            self._attempt(given, point, answer, np.flatnonzero(is_open), in_lanes, with_lossless=True)
        return answer

    def pull_back(self, solved: Solved, loss: Loss) -> Gradient:
        """A loss's gradient with respect to the problems; zeros for those without an answer."""
        given, point, answer = solved
        n_row = len(given.source)
        gradient = Gradient(
            device=np.zeros((given.device.shape[1], n_row, len(self.device_bus))),
            bus=np.zeros((given.bus.shape[1], n_row, self.feeder.n_bus)),
            source=np.zeros(n_row),
        )
        for with_lossless in (False, True):
            rows = np.flatnonzero((answer.status == OPTIMAL) & (point.is_lossless == with_lossless))
            if len(rows):
                kind = self._in_lanes(n_row), with_lossless
                self._call(adjoint, kind, given, point, rows, DIFFERENTIATION, loss, gradient)
        return gradient

    def _in_lanes(self, n_row: int) -> bool:
        # By the whole batch, so that an answer depends on nothing but whether it came alone.
        return n_row > 1 and self.feeder.n_bus <= MOST_BUSES_IN_LANES

    def _attempt(
        self, given: Given, point: Point | None, answer: Answer, rows: np.ndarray, in_lanes: bool, with_lossless: bool
    ) -> None:
        """Solve the problems of `rows`, and those that come out inaccurate once more."""
        for settings in ATTEMPTS:
            if not len(rows):
                break
            self._run(given, point, answer, rows, (in_lanes, with_lossless), settings)
            rows = rows[answer.status[rows] == INACCURATE]

    def _run(
        self,
        given: Given,
        point: Point | None,
        answer: Answer,
        rows: np.ndarray,
        kind: tuple[bool, bool],
        settings: Settings,
    ) -> None:
        """Run the kernel on `rows`, divided among the threads in advance."""
        n_part = min(self.threads, len(rows))
        if n_part == 1:
            self._call(solve, kind, given, point, rows, settings, answer)
        else:
            # Made for this call alone, so that no thread is alive when the process forks.
            with ThreadPoolExecutor(n_part) as pool:
                parts = np.array_split(rows, n_part)
                list(pool.map(lambda part: self._call(solve, kind, given, point, part, settings, answer), parts))

    def _call(
        self,
        entry: Any,
        kind: tuple[bool, bool],
        given: Given,
        point: Point | None,
        rows: np.ndarray,
        settings: Settings,
        *more: Any,
    ) -> None:
        """Call an entry of the kernel with an idle workspace, or with a new one, so that none is shared.

        The workspace has a point of its own for where none is to be kept.
        """
        with_lossless = kind[1]
        idle = self._idle.setdefault(kind, [])
        workspace, own = idle.pop() if idle else (_workspace(self.tree, *kind), _points(self.tree, 1))
        entry(workspace, self.tree, given, point or own, rows, 1 if with_lossless else None, settings, *more)
        idle.append((workspace, own))


class Solved(NamedTuple):
    """Problems as the kernel reads them, their primal-dual points in p.u., and the answers."""

    given: Given
    point: Point
    answer: Answer


def _tree(feeder: Feeder, device_bus: Int[np.ndarray, " device"], has_free_q: Bool[np.ndarray, " device"]) -> Tree:
    devices, freed = np.arange(len(device_bus)), np.flatnonzero(has_free_q)
    at = np.concatenate([device_bus, device_bus[freed]])
    by_bus = np.argsort(at, kind="stable")
    rated = np.isfinite(feeder.i_max_a)
    rated[0] = False
    return Tree(
        parent=feeder.parent.astype(np.int64),
        r=feeder.r_pu.copy(),
        x=feeder.x_pu.copy(),
        rated=rated,
        capacitor_pu=feeder.capacitor_kvar / feeder.base_kva,
        base_a=feeder.base_a.copy(),
        base_kva=feeder.base_kva,
        first=np.searchsorted(at[by_bus], np.arange(feeder.n_bus + 1)).astype(np.int64),
        origin=np.concatenate([devices, freed])[by_bus].astype(np.int64),
        reactive=(by_bus >= len(devices)),
    )


def _given(problem: OpfProblem) -> Given:
    n = problem.load_kw.shape[-1]
    injections, n_row = problem.injections, problem.load_kw.size // n
    of_buses = (problem.load_kw, problem.load_kvar, problem.v_min_pu, problem.v_max_pu, problem.i_max_a)
    return Given(
        device=plain(injections.table.reshape(n_row, len(OF_INJECTIONS), len(injections.bus))),
        bus=np.concatenate(of_buses, axis=-1, dtype=float).reshape(n_row, len(of_buses), n),
        source=np.array(problem.v_source_pu, dtype=float).reshape(n_row),
    )


def _points(tree: Tree, n_row: int) -> Point:
    return Point(
        bus=np.zeros((n_row, layout.POINT_FIELDS, len(tree.parent))),
        device=np.zeros((n_row, layout.POINT_FIELDS_OF_DEVICE, len(tree.origin))),
        is_lossless=np.zeros(n_row, dtype=bool),
    )


def _workspace(tree: Tree, in_lanes: bool, with_lossless: bool) -> Workspace:
    n, lanes = len(tree.parent), (LANES,) if in_lanes else ()
    size = layout.LOSSLESS if with_lossless else layout.PLAIN

    def aligned(*shape: int) -> np.ndarray:
        size = int(np.prod((*shape, *lanes)))
        raw = np.zeros(size + REGISTER_BYTES // 8)
        start = -raw.ctypes.data % REGISTER_BYTES // 8
        return raw[start : start + size].reshape(*shape, *lanes)

    return Workspace(
        bus=aligned(n + 1, size.fields),
        device=aligned(len(tree.origin), layout.DEVICE_FIELDS),
        block=aligned(n, size.rhs + size.kept),
        factor=aligned(n, size.eliminated * (size.size + 1)),
        solved=aligned(n, size.eliminated),
        start=np.zeros((layout.SCRATCH_FIELDS, n)),
    )
