"""The distributed solver: a coordinator at every bus, which talks to its parent and its children and to nobody else.

Alternating direction method of multipliers (ADMM) in consensus form: what coordinators do is in `coordinators.py`, here
problems are laid out for them and their state is read as an answer. First-order, so slower and less exact than
`interior_point`: it is here to study what coordinators exchange on the way, which is returned as iterates, residuals,
messages and price signals.

With the upper limit on lossless voltages every problem is first solved with the limit on the true voltage, which is the
weaker one; one sweep of messages finds the lossless voltages and flows of that answer. Only where these pass a limit do
the coordinators go on, with copies of lossless flows and voltages as well.

A problem without a dispatch within limits is never recognised as such: residuals stay large, and it ends INACCURATE.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from peergrid.grid.feeder import Feeder
from peergrid.grid.opf import coordinators as c
from peergrid.grid.opf.problem import OpfProblem, OpfSolution, OpfStatus, UpperVoltage

# Costs are divided by this price, which brings prices near 1.
TYPICAL_PRICE_PER_KWH = 0.1
FIRST_RHO = 0.3
SETTINGS = c.Settings(
    power_tolerance=1e-8,
    voltage_tolerance=1e-7,
    dual_tolerance=1e-7,
    most_iterations=200000,
    over_relaxation=1.7,
    check_every=10,
    balance_every=100,
    balance_pause=10,
    balance_band=5.0,
)
# A rating beyond this many times the current of the nominal load never binds.
LARGEST_RATING_PU = 100.0
# Lossless voltages and flows are checked when residuals are this many times their tolerance, and may then pass a limit
# by this much. Where they pass it by more, solving with the limit on the true voltage need not go on.
LOOKS = ((1e4, 1e-3), (1e3, 1e-5), (1e2, 1e-6), (1.0, 1e-6))
BYTES_PER_NUMBER = 8
# A check of residuals sends three numbers up each line and one, the next rho or the end, down.
CHECK_NUMBERS, CHECK_MESSAGES = 4, 2
# A sweep for lossless flows sends two numbers up each line and the voltages down.
SWEEP_NUMBERS, SWEEP_MESSAGES = 4, 2


@dataclass(frozen=True, eq=False, kw_only=True)
class AdmmState:
    """Where the coordinators stand, to start from."""

    of_rows: c.State
    is_lossless: Bool[np.ndarray, " row"]


@dataclass(frozen=True, eq=False, kw_only=True)
class AdmmIterates:
    """What each iteration brought; after a problem's last iteration its values stay.

    `exchange_kw` is what flows from the substation into the feeder. The residuals are those of `AdmmResult`.
    """

    exchange_kw: Float[np.ndarray, "*batch iteration"]
    power_residual_pu: Float[np.ndarray, "*batch iteration"]
    voltage_residual_pu: Float[np.ndarray, "*batch iteration"]
    dual_residual: Float[np.ndarray, "*batch iteration"]
    rho: Float[np.ndarray, "*batch iteration"]
    signal_per_kwh: Float[np.ndarray, "*batch iteration bus"]


@dataclass(frozen=True, eq=False, kw_only=True)
class AdmmResult:
    """The answer, and how the coordinators came to it.

    The primal residuals are the largest differences x - z between a variable and a copy of it: of powers in p.u. of
    the nominal load, beside which squared currents count by the root of their weight w; of squared voltages in p.u.
    The dual residual is the largest rho sqrt(w) (z^k - z^(k-1)), relative to TYPICAL_PRICE_PER_KWH. Messages and bytes
    count all that was sent over lines, checks of residuals included. `signal_per_kwh` is psi, as in `te_price_per_kwh`.
    """

    solution: OpfSolution
    state: AdmmState
    iterations: Int[np.ndarray, "*batch"]
    power_residual_pu: Float[np.ndarray, "*batch"]
    voltage_residual_pu: Float[np.ndarray, "*batch"]
    dual_residual: Float[np.ndarray, "*batch"]
    rho: Float[np.ndarray, "*batch"]
    signal_per_kwh: Float[np.ndarray, "*batch bus"]
    messages: Int[np.ndarray, "*batch"]
    message_bytes: Int[np.ndarray, "*batch"]
    iterates: AdmmIterates | None


class AdmmOpf:
    """Solves optimal power flows of one shape: the same feeder, the same buses with flexible injections."""

    def __init__(
        self,
        feeder: Feeder,
        device_bus: Int[np.ndarray, " device"],
        has_free_q: Bool[np.ndarray, " device"],
        upper_voltage: UpperVoltage = UpperVoltage.LOSSLESS,
        settings: c.Settings = SETTINGS,
    ) -> None:
        """
        Args:
            device_bus: Bus of each flexible injection.
            has_free_q: Which of them have reactive power of their own, within bounds.
        """
        self.feeder = feeder
        self.device_bus = device_bus
        self.has_free_q = has_free_q
        self.upper_voltage = upper_voltage
        self.settings = settings
        devices, freed = np.arange(len(device_bus)), np.flatnonzero(has_free_q)
        at = np.concatenate([device_bus, device_bus[freed]])
        by_bus = np.argsort(at, kind="stable")
        # Active and free reactive parts of the injections, sorted by bus: which injection, and whether reactive.
        self._origin = np.concatenate([devices, freed])[by_bus]
        self._is_reactive = by_bus >= len(devices)
        self.network = _network(feeder, np.searchsorted(at[by_bus], np.arange(feeder.n_bus + 1)))

    def __call__(self, problem: OpfProblem) -> OpfSolution:
        """The optimum of every problem in the batch."""
        return self.solve(problem).solution

    def solve(
        self,
        problem: OpfProblem,
        start: AdmmState | None = None,
        record: int = 0,
    ) -> AdmmResult:
        """The optimum of every problem in the batch, and how it was reached.

        Args:
            start: State of a former result, for a batch of the same size; it is left as it is.
            record: How many iterations are recorded at most.
        """
        batch = problem.load_kw.shape[:-1]
        data = self._data(problem)
        n_row, n, lines = len(data.load), self.feeder.n_bus, self.feeder.n_bus - 1
        if start is not None and len(start.is_lossless) != n_row:
            raise ValueError(f"a start of {len(start.is_lossless)} problems for a batch of {n_row}")
        state = _first_state(self, data) if start is None else c.State(*(a.copy() for a in start.of_rows))
        is_lossless = np.zeros(n_row, dtype=bool) if start is None else start.is_lossless.copy()
        found = c.Found(
            iterations=np.zeros(n_row, dtype=np.int64),
            residual=np.full((n_row, 3), np.inf),
            trace=np.zeros((n_row, record, 5)),
            signals=np.zeros((n_row, record, n)),
        )
        messages, numbers = np.zeros(n_row, dtype=np.int64), np.zeros(n_row, dtype=np.int64)

        def iterate(rows: np.ndarray, with_lossless: bool, settings: c.Settings) -> None:
            mail, before = mailbox(n, with_lossless), found.iterations[rows].copy()
            c.solve_rows(self.network, data, state, mail, rows, settings, found)
            count = found.iterations[rows] - before
            checks = count // self.settings.check_every
            messages[rows] += lines * (len(mail) * count + CHECK_MESSAGES * checks)
            numbers[rows] += lines * (sum(letter.shape[1] for letter in mail) * count + CHECK_NUMBERS * checks)

        if self.upper_voltage is UpperVoltage.PLAIN:
            iterate(np.arange(n_row), False, self.settings)
        else:
            half = self.settings._replace(most_iterations=self.settings.most_iterations // 2)
            for times, slack in LOOKS:
                rows = np.flatnonzero(~is_lossless)
                iterate(rows, False, _rough(half, times))
                for row in rows:
                    is_lossless[row] = c.lossless_flows(self.network, data, state, row, slack)
                messages[rows] += lines * SWEEP_MESSAGES
                numbers[rows] += lines * SWEEP_NUMBERS
            iterate(np.flatnonzero(is_lossless), True, self.settings)

        power, voltage, dual = found.residual.T
        is_solved = (power <= self.settings.power_tolerance) & (voltage <= self.settings.voltage_tolerance)
        is_solved &= dual <= self.settings.dual_tolerance
        return AdmmResult(
            solution=self._solution(problem, state, is_lossless, is_solved, found.iterations),
            state=AdmmState(of_rows=state, is_lossless=is_lossless),
            iterations=found.iterations.reshape(batch),
            power_residual_pu=power.reshape(batch),
            voltage_residual_pu=voltage.reshape(batch),
            dual_residual=dual.reshape(batch),
            rho=state.rho.reshape(batch),
            signal_per_kwh=(state.signal * TYPICAL_PRICE_PER_KWH).reshape(*batch, n),
            messages=messages.reshape(batch),
            message_bytes=(BYTES_PER_NUMBER * numbers).reshape(batch),
            iterates=_iterates(found, batch, self.feeder.base_kva) if record else None,
        )

    def _data(self, problem: OpfProblem) -> c.Data:
        feeder, s, given = self.feeder, self.feeder.base_kva, problem.injections
        n, n_row = feeder.n_bus, problem.load_kw.size // feeder.n_bus

        def part(active: np.ndarray, reactive: np.ndarray | float) -> np.ndarray:
            """Of each part of an injection, [row, part]."""
            of_active = active.reshape(n_row, -1)[:, self._origin]
            of_reactive = np.broadcast_to(reactive, active.shape).reshape(n_row, -1)[:, self._origin]
            return np.where(self._is_reactive, of_reactive, of_active)

        slope = given.linear_per_kwh - 2.0 * given.quadratic_per_kw2h * given.reference_kw
        injection = [
            part(2.0 * given.quadratic_per_kw2h * s / TYPICAL_PRICE_PER_KWH, 0.0),
            part(slope / TYPICAL_PRICE_PER_KWH, 0.0),
            part(given.p_min_kw / s, given.q_min_kvar / s),
            part(given.p_max_kw / s, given.q_max_kvar / s),
            part(np.ones_like(given.tan_phi), 0.0),
            part(given.tan_phi, 1.0),
        ]
        rating = problem.i_max_a.reshape(n_row, n) / feeder.base_a
        root = np.full(n_row, np.nan) if problem.root_price_per_kwh is None else problem.root_price_per_kwh
        return c.Data(
            load=np.stack([problem.load_kw, problem.load_kvar - feeder.capacitor_kvar], axis=-1).reshape(n_row, n, 2)
            / s,
            v_source=problem.v_source_pu.reshape(n_row) ** 2,
            v_min=problem.v_min_pu.reshape(n_row, n) ** 2,
            v_max=problem.v_max_pu.reshape(n_row, n) ** 2,
            l_max=np.where(self.network.rated, np.minimum(rating, LARGEST_RATING_PU) ** 2, np.inf),
            injection=np.ascontiguousarray(np.stack(injection, axis=-1)),
            root_price=root.reshape(n_row) / TYPICAL_PRICE_PER_KWH,
        )

    def _solution(
        self,
        problem: OpfProblem,
        state: c.State,
        is_lossless: Bool[np.ndarray, " row"],
        is_solved: Bool[np.ndarray, " row"],
        iterations: Int[np.ndarray, " row"],
    ) -> OpfSolution:
        batch, s, given = problem.load_kw.shape[:-1], self.feeder.base_kva, problem.injections
        n_row, n_device = len(is_solved), len(self.device_bus)
        active, reactive = ~self._is_reactive, self._is_reactive
        p_kw, free_kvar = np.zeros((2, n_row, n_device))
        p_kw[:, self._origin[active]] = state.injection[:, active, c.X] * s
        free_kvar[:, self._origin[reactive]] = state.injection[:, reactive, c.X] * s
        multiplier = -TYPICAL_PRICE_PER_KWH * state.rho[..., None] * state.multiplier
        price, price_q, _, price_hat, price_q_hat, _ = np.moveaxis(multiplier, -1, 0)
        limit = np.maximum(TYPICAL_PRICE_PER_KWH * s * state.rho[..., None] * state.limit, 0.0)
        lossless = is_lossless[:, None]
        rows = {
            "p_kw": p_kw,
            "q_kvar": free_kvar + given.tan_phi.reshape(n_row, n_device) * p_kw,
            "flow_kw": state.x[..., c.P] * s,
            "flow_kvar": state.x[..., c.Q] * s,
            "current_pu2": state.x[..., c.L],
            "voltage_pu": np.sqrt(np.maximum(state.x[..., c.V], 0.0)),
            "price_per_kwh": price + np.where(lossless, price_hat, 0.0),
            "reactive_price_per_kvarh": price_q + np.where(lossless, price_q_hat, 0.0),
            "v_min_multiplier": limit[..., c.V_MIN],
            "v_max_multiplier": limit[..., c.V_MAX],
            "i_max_multiplier": limit[..., c.I_MAX],
            "i_max_lossless_multiplier": np.where(lossless, limit[..., c.I_MAX_HAT], 0.0),
            "te_signal_per_kwh": state.signal * TYPICAL_PRICE_PER_KWH,
        }
        found = {
            name: np.where(is_solved[:, None], values, 0.0).reshape(*batch, values.shape[-1])
            for name, values in rows.items()
        }
        solved = is_solved.reshape(batch)
        return OpfSolution(
            **found,
            cost_per_hour=np.where(solved, given.cost(found["p_kw"]), 0.0),
            status=np.where(solved, int(OpfStatus.OPTIMAL), int(OpfStatus.INACCURATE)),
            iterations=iterations.reshape(batch),
        )


def _rough(settings: c.Settings, times: float) -> c.Settings:
    return settings._replace(
        power_tolerance=times * settings.power_tolerance,
        voltage_tolerance=times * settings.voltage_tolerance,
        dual_tolerance=times * settings.dual_tolerance,
    )


def mailbox(n_bus: int, with_lossless: bool) -> c.Mail:
    """Empty letters, by line: how many numbers each of the four messages of an iteration has."""
    copies_up, copies_down, values_up, values_down = (2, 4, 4, 3) if with_lossless else (1, 2, 2, 2)
    return c.Mail(
        copies_up=np.zeros((n_bus, copies_up)),
        copies_down=np.zeros((n_bus, copies_down)),
        values_up=np.zeros((n_bus, values_up)),
        values_down=np.zeros((n_bus, values_down)),
    )


def _network(feeder: Feeder, first: Int[np.ndarray, " bound"]) -> c.Network:
    n, parent = feeder.n_bus, feeder.parent
    r, x = feeder.r_pu.copy(), feeder.x_pu.copy()
    rated = np.isfinite(feeder.i_max_a) & (np.arange(n) > 0)
    z = np.maximum(np.hypot(r, x), c.LEAST_Z) / c.REFERENCE_Z
    weight = np.ones((n, c.N_FIELDS))
    weight[:, c.L] = c.W_CURRENT * z
    for f in (c.V, c.A, c.V_HAT, c.A_HAT):
        weight[:, f] = c.W_VOLTAGE * z ** (-1 / 3)
    weight[:, c.W] = c.W_CONE_VOLTAGE * z ** (-1 / 2)
    weight[:, c.W_HAT] = np.where(rated, weight[:, c.W], 0.0)

    # sum p + P - r l - sum P_k = load,  v - v_A + 2 (r P + x Q) - |z|^2 l = 0,  and the same without l.
    column = np.zeros((n, c.ALL_COPIES, c.ALL_EQUATIONS))
    of_flows, of_hats = (c.P, c.Q, c.V, c.A, 0), (c.P_HAT, c.Q_HAT, c.V_HAT, c.A_HAT, c.PLAIN_EQUATIONS)
    for p, q, v, above, e in (of_flows, of_hats):
        column[:, p, e], column[:, q, e + 1] = 1.0, 1.0
        column[:, p, e + 2], column[:, q, e + 2] = 2.0 * r, 2.0 * x
        column[:, v, e + 2], column[:, above, e + 2] = 1.0, -1.0
    column[:, c.L, :3] = np.stack([-r, -x, -(r**2 + x**2)], axis=-1)
    return c.Network(
        parent=parent.astype(np.int64),
        first_child=np.concatenate([[0], np.cumsum(np.bincount(parent[1:], minlength=n))]).astype(np.int64),
        child=(1 + np.argsort(parent[1:], kind="stable")).astype(np.int64),
        first=first.astype(np.int64),
        r=r,
        x=x,
        rated=rated,
        weight=weight,
        column=column,
    )


def _first_state(solver: AdmmOpf, data: c.Data) -> c.State:
    """Nothing flows at the voltage of the substation, and every injection is as near to zero as it may be."""
    n_row, n, n_part = len(data.load), solver.feeder.n_bus, len(solver._origin)
    x = np.zeros((n_row, n, c.N_FIELDS))
    for f in (c.V, c.A, c.W, c.V_HAT, c.A_HAT, c.W_HAT):
        x[..., f] = data.v_source[:, None]
    injection = np.zeros((n_row, n_part, 3))
    injection[..., c.Z] = np.clip(0.0, data.injection[..., c.LOW], data.injection[..., c.HIGH])
    return c.State(
        x=x,
        z=x.copy(),
        u=np.zeros_like(x),
        held_z=np.zeros((n_row, n, 4)),
        held_u=np.zeros((n_row, n, 4)),
        injection=injection,
        multiplier=np.zeros((n_row, n, c.ALL_EQUATIONS)),
        limit=np.zeros((n_row, n, 4)),
        signal=np.zeros((n_row, n)),
        rho=np.full((n_row, 1), FIRST_RHO),
    )


def _iterates(found: c.Found, batch: tuple[int, ...], base_kva: float) -> AdmmIterates:
    n_recorded = min(found.trace.shape[1], int(found.iterations.max(initial=0)))
    last = np.minimum(np.arange(n_recorded), np.maximum(found.iterations, 1)[:, None] - 1)
    trace = np.take_along_axis(found.trace, last[..., None], axis=1).reshape(*batch, n_recorded, 5)
    signals = np.take_along_axis(found.signals, last[..., None], axis=1)
    return AdmmIterates(
        exchange_kw=trace[..., 0] * base_kva,
        power_residual_pu=trace[..., 1],
        voltage_residual_pu=trace[..., 2],
        dual_residual=trace[..., 3],
        rho=trace[..., 4],
        signal_per_kwh=signals.reshape(*batch, n_recorded, -1) * TYPICAL_PRICE_PER_KWH,
    )
