"""Clarabel and QOCO without a modelling layer: the equations of peergrid.grid.opf.problem as matrices built once.

minimise x'Px/2 + q'x subject to Ax + s = b, s in a product of cones: zero, nonnegative, second-order of dimension 4.
From one problem to the next change q, b, the diagonal of P, and in A the power factors of loads.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import clarabel
import numpy as np
import scipy.sparse as sp
from speed_problems import Answer

from peergrid.grid.opf.conic import LARGEST_RATING_PU, TYPICAL_PRICE_PER_KWH
from peergrid.grid.opf.problem import OpfProblem, OpfStatus, UpperVoltage

try:
    import qoco
except ImportError:
    qoco = None

TOLERANCE = 1e-8  # Clarabel's own default
CONE_PARTS = ("top", "p", "q", "bottom")  # |(2P, 2Q, v - l)| <= v + l says P^2 + Q^2 <= v l


@dataclass(frozen=True, eq=False, kw_only=True)
class ConeData:
    """What differs between problems: the diagonal of P, q, the entries of A in the order of its CSC form, and b."""

    p: np.ndarray
    q: np.ndarray
    a: np.ndarray
    b: np.ndarray


class ConeProgram:
    """The matrices of one feeder and its flexible injections, in p.u., and what to fill in for a problem.

    Injections that can move in none of the problems given, as where a bus has no load to shed, are no variables.
    """

    def __init__(self, problems: OpfProblem, has_free_q: np.ndarray) -> None:
        """
        Args:
            problems: A batch, of one as well.
            has_free_q: Which injections have reactive power of their own.
        """
        feeder, injections = problems.feeder, problems.injections
        n, line = feeder.n_bus, np.arange(feeder.n_bus - 1)
        self.feeder, self.bus, self.free = feeder, injections.bus, np.flatnonzero(has_free_q)
        self.lossless = problems.upper_voltage is UpperVoltage.LOSSLESS
        moves = (injections.p_max_kw > injections.p_min_kw).reshape(-1, len(self.bus)).any(axis=0)
        self.moves, self.stays = np.flatnonzero(moves), np.flatnonzero(~moves)
        self.rated = np.flatnonzero(np.isfinite(feeder.i_max_a[1:]))
        self.from_source = np.flatnonzero(feeder.parent[1:] == 0)
        self.rated_from_source = np.isin(self.rated, self.from_source)

        rows = self._rows(line, n)
        names = ["u", "h", "P", "Q", "l", "v", *(["Ph", "Qh", "vh"] if self.lossless else [])]
        width = {name: n - 1 for name in names} | {"u": len(self.moves), "h": len(self.free)}
        height = {name: next(iter(blocks.values())).shape[0] for name, blocks in rows.items()}
        starts = np.cumsum([0, *height.values()])
        self.row = {name: slice(start, start + height[name]) for name, start in zip(rows, starts, strict=False)}
        stacked = sp.block_array(
            [
                [blocks.get(name, sp.csr_array((height[row], width[name]))) for name in names]
                for row, blocks in rows.items()
            ],
            format="csr",
        )
        cones = [family for family in ("cone", "rating") if f"{family}_top" in rows]
        parts = [np.stack([np.arange(starts[-1])[self.row[f"{c}_{part}"]] for part in CONE_PARTS], 1) for c in cones]
        self.n_cone = sum(map(len, parts))
        self.n_zero = self.row["u_min"].start
        self.n_nonnegative = int(starts[-1]) - self.n_zero - 4 * self.n_cone
        # The four rows of a cone stand together.
        self.order = np.concatenate([np.arange(self.n_zero + self.n_nonnegative), *map(np.ravel, parts)])
        self.A = sp.csc_array(stacked[self.order])
        column = np.repeat(np.arange(self.A.shape[1]), np.diff(self.A.indptr))
        self.tan_phi_place = np.flatnonzero(np.isnan(self.A.data))
        self.tan_phi_device = self.moves[column[self.tan_phi_place]]
        diagonal = np.arange(len(self.moves))
        self.P = sp.csc_array((np.ones(len(diagonal)), (diagonal, diagonal)), shape=(self.A.shape[1],) * 2)

    def _rows(self, line: np.ndarray, n: int) -> dict[str, dict[str, Any]]:
        """The rows of A by name: zero cone first, then nonnegative from `u_min`, then second-order from `cone_top`."""
        feeder = self.feeder
        ones, one = np.ones(n - 1), sp.eye_array(n - 1, format="csr")
        r, x = sp.diags_array(feeder.r_pu[1:]), sp.diags_array(feeder.x_pu[1:])
        leaving = sp.csr_array((ones, (feeder.parent[1:], line)), shape=(n, n - 1))
        feeding = sp.csr_array((ones, (line + 1, line)), shape=(n, n - 1))
        onward, parent = leaving - feeding, leaving[1:].T
        some, some_parent = one[self.rated], sp.csr_array(parent)[self.rated]
        u, h = _incidence(self.bus[self.moves], n), _incidence(self.bus[self.free], n)
        tan_phi = u * np.nan  # found again by this, and filled in for every problem
        u_one, h_one = sp.eye_array(len(self.moves)), sp.eye_array(len(self.free))
        zero = {
            "balance_p": {"u": -u, "P": onward, "l": feeding @ r},
            "balance_q": {"u": tan_phi, "h": -h, "Q": onward, "l": feeding @ x},
            "drop": {"P": 2 * r, "Q": 2 * x, "l": -(r @ r + x @ x), "v": one - parent},
        }
        nonnegative = {
            "u_min": {"u": -u_one},
            "u_max": {"u": u_one},
            "h_min": {"h": -h_one},
            "h_max": {"h": h_one},
            "v_min": {"v": -one},
            "v_max": {"vh" if self.lossless else "v": one},
            "l_max": {"l": some},
        }
        cones = {
            "cone_top": {"v": -parent, "l": -one},
            "cone_p": {"P": -2 * one},
            "cone_q": {"Q": -2 * one},
            "cone_bottom": {"v": -parent, "l": one},
        }
        if self.lossless:
            zero |= {
                "lossless_p": {"u": -u[1:], "Ph": onward[1:]},
                "lossless_q": {"u": tan_phi[1:], "h": -h[1:], "Qh": onward[1:]},
                "lossless_drop": {"Ph": 2 * r, "Qh": 2 * x, "vh": one - parent},
            }
            cones |= {
                "rating_top": {"v": -some_parent},
                "rating_p": {"Ph": -2 * some},
                "rating_q": {"Qh": -2 * some},
                "rating_bottom": {"v": -some_parent},
            }
        return zero | nonnegative | cones

    def data(self, problem: OpfProblem) -> ConeData:
        """What to fill in for one problem, which has no batch dimensions."""
        i, s, row = problem.injections, self.feeder.base_kva, self.row
        moves, free = self.moves, self.free
        load_p, load_q = problem.load_kw / s, (problem.load_kvar - self.feeder.capacitor_kvar) / s
        known = self._origin_kw(problem) / s
        load_p = load_p - np.bincount(self.bus, known, len(load_p))
        load_q = load_q - np.bincount(self.bus, known * i.tan_phi, len(load_q))
        v_source = problem.v_source_pu**2
        l_max = np.minimum(problem.i_max_a[1:] / self.feeder.base_a[1:], LARGEST_RATING_PU)[self.rated] ** 2
        b = np.zeros(len(self.order))
        b[row["balance_p"]], b[row["balance_q"]] = -load_p, -load_q
        b[row["u_min"]], b[row["u_max"]] = (known - i.p_min_kw / s)[moves], (i.p_max_kw / s - known)[moves]
        b[row["h_min"]], b[row["h_max"]] = -i.q_min_kvar[free] / s, i.q_max_kvar[free] / s
        b[row["v_min"]], b[row["v_max"]] = -(problem.v_min_pu[1:] ** 2), problem.v_max_pu[1:] ** 2
        b[row["l_max"]] = l_max
        for name in ("drop", "cone_top", "cone_bottom"):
            b[row[name].start + self.from_source] = v_source
        if self.lossless:
            b[row["lossless_p"]], b[row["lossless_q"]] = -load_p[1:], -load_q[1:]
            b[row["lossless_drop"].start + self.from_source] = v_source
            v_known = self.rated_from_source * v_source
            b[row["rating_top"]], b[row["rating_bottom"]] = v_known + l_max, v_known - l_max
        q = np.zeros(self.A.shape[1])
        q[: len(moves)] = i.linear_per_kwh[moves] / TYPICAL_PRICE_PER_KWH
        a = self.A.data.copy()
        a[self.tan_phi_place] = -i.tan_phi[self.tan_phi_device]
        p = 2 * s * i.quadratic_per_kw2h[moves] / TYPICAL_PRICE_PER_KWH
        return ConeData(p=p, q=q, a=a, b=b[self.order])

    def answer(self, problem: OpfProblem, x: np.ndarray, solved: bool, iterations: int) -> Answer:
        """The dispatch that x says, and what it costs."""
        p_kw = self._origin_kw(problem)
        p_kw[self.moves] += x[: len(self.moves)] * self.feeder.base_kva
        return Answer(problem, p_kw, OpfStatus.OPTIMAL if solved else OpfStatus.INACCURATE, iterations)

    def _origin_kw(self, problem: OpfProblem) -> np.ndarray:
        """Where u = 0: at the reference, so that the objective is the cost, without a constant that hides the gap."""
        origin = problem.injections.reference_kw.copy()
        origin[self.stays] = problem.injections.p_min_kw[self.stays]
        return origin


def _incidence(bus: np.ndarray, n_bus: int) -> sp.csr_array:
    return sp.csr_array((np.ones(len(bus)), (bus, np.arange(len(bus)))), shape=(n_bus, len(bus)))


class RawClarabel:
    """Clarabel's own Python interface, one thread: set up once, then `update` and `solve`.

    Updating needs presolve and chordal decomposition off; neither would find anything to do here.
    """

    def __init__(self, problems: OpfProblem, has_free_q: np.ndarray, linear_solver: str = "auto") -> None:
        self.program = ConeProgram(problems, has_free_q)
        settings = clarabel.DefaultSettings()
        settings.verbose = False
        settings.presolve_enable = settings.chordal_decomposition_enable = False
        settings.max_threads = 1
        settings.direct_solve_method = linear_solver
        settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = TOLERANCE
        self.settings = settings
        self._solver: Any = None

    def __call__(self, problem: OpfProblem) -> Answer:
        data = self.program.data(problem)
        if self._solver is None:
            self._set_up(data)
        else:
            self._update(data)
        solution = self._solver.solve()
        solved = str(solution.status) in ("Solved", "AlmostSolved")
        return self.program.answer(problem, np.asarray(solution.x), solved, solution.iterations)

    def _set_up(self, data: ConeData) -> None:
        program = self.program
        P, A = program.P.copy(), program.A.copy()
        P.data[:], A.data[:] = data.p, data.a
        self._last = data
        cones = [clarabel.ZeroConeT(program.n_zero), clarabel.NonnegativeConeT(program.n_nonnegative)]
        cones += [clarabel.SecondOrderConeT(4)] * program.n_cone
        self._solver = clarabel.DefaultSolver(sp.csc_matrix(P), data.q, sp.csc_matrix(A), data.b, cones, self.settings)

    def _update(self, data: ConeData) -> None:
        # Matrices that stay as they were, but for rounding of the power factors, need no update.
        changed = {"q": data.q, "b": data.b}
        if _differ(data.p, self._last.p):
            changed["P"] = data.p
        if _differ(data.a, self._last.a):
            changed["A"] = data.a
        self._solver.update(**changed)
        self._last = replace(data, p=changed.get("P", self._last.p), a=changed.get("A", self._last.a))


def _differ(one: np.ndarray, other: np.ndarray) -> bool:
    return bool(np.abs(one - other).max(initial=0.0) > 1e-12)


class Qoco:
    """QOCO, set up anew for every problem: after its own update of vectors it was less accurate, and no faster.

    It wants the equalities apart from the cones.
    """

    def __init__(self, problems: OpfProblem, has_free_q: np.ndarray) -> None:
        self.program = ConeProgram(problems, has_free_q)
        numbered = self.program.A.copy()
        numbered.data = np.arange(1.0, len(numbered.data) + 1.0)
        zero = self.program.n_zero
        parts = [sp.csc_array(part) for part in (sp.csr_array(numbered)[:zero], sp.csr_array(numbered)[zero:])]
        self._from = [part.data.astype(int) - 1 for part in parts]
        self._A, self._G = (sp.csc_matrix(part) for part in parts)
        self._P = sp.csc_matrix(self.program.P)

    def __call__(self, problem: OpfProblem) -> Answer:
        program = self.program
        data, zero = program.data(problem), program.n_zero
        self._P.data[:] = data.p
        self._A.data, self._G.data = (data.a[place] for place in self._from)
        solver = qoco.QOCO()
        solver.setup(
            program.A.shape[1],
            program.A.shape[0] - zero,
            zero,
            self._P,
            data.q,
            self._A,
            data.b[:zero],
            self._G,
            data.b[zero:],
            program.n_nonnegative,
            program.n_cone,
            np.full(program.n_cone, 4),
            abstol=TOLERANCE,
            reltol=TOLERANCE,
        )
        result = solver.solve()
        solved = result.status in ("QOCO_SOLVED", "QOCO_SOLVED_INACCURATE")
        return program.answer(problem, np.asarray(result.x), solved, result.iters)
