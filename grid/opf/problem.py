"""What an optimal power flow is asked, and what it answers; the same for every solver.

Buses j, parent A(j), children C(j); line j joins A(j) to j; P_j, Q_j flow at its sending (parent) end, l_j is its
squared current, v_j the squared voltage of bus j; p_j, q_j the net injection:

    sum_{k in C(j)} P_k = P_j - r_j l_j + p_j                       multiplier: the nodal price of j
    sum_{k in C(j)} Q_k = Q_j - x_j l_j + q_j
    v_j = v_A(j) - 2 (r_j P_j + x_j Q_j) + (r_j^2 + x_j^2) l_j
    P_j^2 + Q_j^2 <= l_j v_A(j)                                     second-order cone relaxation
    v_min^2 <= v_j,   l_j <= i_max_j^2
    w_j <= v_max^2                                                  w: lossless or plain voltage, see UpperVoltage
    Ph_j^2 + Qh_j^2 <= i_max_j^2 v_A(j)                             lossless flows; with the lossless voltage only

Source: DistFlow of Baran and Wu, IEEE Trans. Power Delivery 4(1), 1989; its relaxation by Farivar and Low, IEEE Trans.
Power Systems 28(3), 2013.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum

import numpy as np
from jaxtyping import Float, Int

from peergrid.grid.errors import InvalidQuery, raise_faults
from peergrid.grid.feeder import Feeder
from peergrid.grid.opf.table import Field, fields_of, filled


class UpperVoltage(StrEnum):
    """Which voltage the upper limit binds."""

    LOSSLESS = "lossless"
    """The voltage neglecting losses, which is never below the true one. Lossless flows are kept within the ratings as
    well, which matters where power flows back. Then inventing losses relieves no limit, and as long as energy costs
    something at the substation the relaxation is tight. Source, for the voltage: Gan, Li, Topcu and Low, IEEE Trans.
    Automatic Control 60(1), 2015."""
    PLAIN = "plain"
    """The voltage itself: where exports press against a limit, the relaxation invents line currents that burn the
    surplus."""


class OpfStatus(IntEnum):
    """How a solve ended."""

    OPTIMAL = 0
    INFEASIBLE = 1
    INACCURATE = 2

    @property
    def sentence(self) -> str:
        return {
            OpfStatus.OPTIMAL: "solved to the tolerance",
            OpfStatus.INFEASIBLE: "no dispatch keeps every bus and line within limits",
            OpfStatus.INACCURATE: "the solver stopped before reaching the tolerance",
        }[self]


@dataclass(frozen=True, eq=False, init=False)
class Injections:
    """Everything that can move, one entry per flexible injection: substation, generators, shedding, trades.

    An injection p at `bus` costs `linear (p - reference) + quadratic (p - reference)^2` per hour, and brings the
    reactive injection `tan_phi p + h`: tied to p by a power factor, or free by h within its own bounds.
    """

    bus: Int[np.ndarray, " device"]
    table: Float[np.ndarray, "*batch 8 device"]

    p_min_kw = Field("table")
    p_max_kw = Field("table")
    linear_per_kwh = Field("table")
    quadratic_per_kw2h = Field("table")
    reference_kw = Field("table")
    tan_phi = Field("table")
    q_min_kvar = Field("table")
    q_max_kvar = Field("table")

    def __init__(
        self,
        *,
        bus: Int[np.ndarray, " device"],
        table: Float[np.ndarray, "*batch 8 device"] | None = None,
        **fields: Float[np.ndarray, "..."],
    ) -> None:
        """
        Args:
            fields: In place of the table's; all of them if there is no table.
        """
        object.__setattr__(self, "bus", bus)
        object.__setattr__(self, "table", filled(OF_INJECTIONS, table, fields))

    def cost(self, p_kw: Float[np.ndarray, "*batch device"]) -> Float[np.ndarray, "*batch"]:
        """Cost of a dispatch, in currency per hour."""
        away = p_kw - self.reference_kw
        return np.asarray((self.linear_per_kwh * away + self.quadratic_per_kw2h * away**2).sum(axis=-1))


OF_INJECTIONS = fields_of(Injections, "table")


@dataclass(frozen=True, eq=False, kw_only=True)
class OpfProblem:
    """A batch of optimal power flows on one feeder; the limits of the substation itself are not used.

    `root_price_per_kwh` is where transactive signals start, the nodal price there if None: it changes no dispatch, and
    only solvers that exchange signals read it.
    """

    feeder: Feeder
    upper_voltage: UpperVoltage
    injections: Injections
    load_kw: Float[np.ndarray, "*batch bus"]
    load_kvar: Float[np.ndarray, "*batch bus"]
    v_source_pu: Float[np.ndarray, "*batch"]
    v_min_pu: Float[np.ndarray, "*batch bus"]
    v_max_pu: Float[np.ndarray, "*batch bus"]
    i_max_a: Float[np.ndarray, "*batch bus"]
    root_price_per_kwh: Float[np.ndarray, "*batch"] | None = None

    def __post_init__(self) -> None:
        check_problem(self)


@dataclass(frozen=True, eq=False, init=False)
class OpfSolution:
    """The dispatch, what flows, and the multipliers; zeros where `status` says that there is no answer.

    Prices are d cost / d load. Multipliers are not negative; those of voltage and current belong to the squared limits
    in p.u., in currency per hour. `te_signal_per_kwh` is the transactive signal that the solver's coordinators came to
    among themselves; None of solvers that have none.
    """

    of_devices: Float[np.ndarray, "*batch 2 device"]
    of_buses: Float[np.ndarray, "*batch 10 bus"]
    cost_per_hour: Float[np.ndarray, "*batch"]
    status: Int[np.ndarray, "*batch"]
    iterations: Int[np.ndarray, "*batch"]
    te_signal_per_kwh: Float[np.ndarray, "*batch bus"] | None = None

    p_kw = Field("of_devices")
    q_kvar = Field("of_devices")

    flow_kw = Field("of_buses")
    flow_kvar = Field("of_buses")
    current_pu2 = Field("of_buses")
    voltage_pu = Field("of_buses")
    price_per_kwh = Field("of_buses")
    reactive_price_per_kvarh = Field("of_buses")
    v_min_multiplier = Field("of_buses")
    v_max_multiplier = Field("of_buses")
    i_max_multiplier = Field("of_buses")
    i_max_lossless_multiplier = Field("of_buses")

    def __init__(
        self,
        *,
        of_devices: Float[np.ndarray, "*batch 2 device"] | None = None,
        of_buses: Float[np.ndarray, "*batch 10 bus"] | None = None,
        cost_per_hour: Float[np.ndarray, "*batch"],
        status: Int[np.ndarray, "*batch"],
        iterations: Int[np.ndarray, "*batch"],
        te_signal_per_kwh: Float[np.ndarray, "*batch bus"] | None = None,
        **fields: Float[np.ndarray, "..."],
    ) -> None:
        """
        Args:
            fields: In place of the tables'; all of them if there are no tables.
        """
        by_device = {name: fields.pop(name) for name in ANSWERED_OF_DEVICES if name in fields}
        object.__setattr__(self, "of_devices", filled(ANSWERED_OF_DEVICES, of_devices, by_device))
        object.__setattr__(self, "of_buses", filled(ANSWERED_OF_BUSES, of_buses, fields))
        object.__setattr__(self, "cost_per_hour", cost_per_hour)
        object.__setattr__(self, "status", status)
        object.__setattr__(self, "iterations", iterations)
        object.__setattr__(self, "te_signal_per_kwh", te_signal_per_kwh)


ANSWERED_OF_DEVICES = fields_of(OpfSolution, "of_devices")
ANSWERED_OF_BUSES = fields_of(OpfSolution, "of_buses")


def relaxation_gap(
    feeder: Feeder, solution: OpfSolution, flowing: Float[np.ndarray, "*batch bus"] | None = None
) -> Float[np.ndarray, "*batch"]:
    """The largest loss that the relaxation invents on a line, |z| (l - (P^2 + Q^2) / v), in p.u. of the nominal load.

    Weighted by the impedance, as excess current in a line without impedance changes neither losses, voltages nor
    prices. (In lines of a milliohm every solver leaves l too large by up to 1e-2 p.u., without consequence.)

    Args:
        flowing: What `flowing_pu2` says of the solution, if that is known already.
    """
    flowing = flowing_pu2(feeder, solution) if flowing is None else flowing
    invented = np.hypot(feeder.r_pu, feeder.x_pu) * (solution.current_pu2 - flowing)
    return np.asarray(invented[..., 1:].max(axis=-1, initial=0.0))


def flowing_pu2(feeder: Feeder, solution: OpfSolution) -> Float[np.ndarray, "*batch bus"]:
    """The squared current of the flows, (P^2 + Q^2) / v, in p.u.: equal to l where the relaxation is tight."""
    from_voltage = np.maximum(solution.voltage_pu.take(feeder.parent, axis=-1) ** 2, 1e-12)
    p_pu, q_pu = solution.flow_kw / feeder.base_kva, solution.flow_kvar / feeder.base_kva
    return (p_pu**2 + q_pu**2) / from_voltage


def check_problem(problem: OpfProblem) -> None:
    """Raise InvalidQuery naming every array with NaN and every pair of crossed bounds."""
    if not _is_sound(problem):
        raise_faults(InvalidQuery, "optimal power flow", _faults(problem))


def _is_sound(problem: OpfProblem) -> bool:
    """Whether there can be no fault, in a few operations, as nearly all problems are sound."""
    device = problem.injections
    # A sum is finite only if all its terms are.
    with np.errstate(invalid="ignore", over="ignore"):
        of_buses = problem.load_kw + problem.load_kvar + problem.v_min_pu + problem.v_max_pu
        of_buses = of_buses + problem.v_source_pu[..., None]
    buses = np.isfinite(of_buses) & (problem.v_min_pu >= 0) & (problem.v_min_pu <= problem.v_max_pu)
    devices = (device.p_min_kw <= device.p_max_kw) & (device.q_min_kvar <= device.q_max_kvar)
    is_sound = (buses & (problem.i_max_a > 0)).all() and (devices & (device.quadratic_per_kw2h >= 0)).all()
    return bool(is_sound and np.isfinite(device.table).all())


def _faults(problem: OpfProblem) -> list[str]:
    faults: list[str] = []
    injections = problem.injections
    arrays = {name: getattr(injections, name) for name in OF_INJECTIONS}
    arrays |= {name: getattr(problem, name) for name in ("load_kw", "load_kvar", "v_source_pu", "v_min_pu", "v_max_pu")}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            faults.append(f"{name} is not finite at {_where(~np.isfinite(array))}")
    if np.isnan(problem.i_max_a).any():
        faults.append(f"i_max_a is NaN at {_where(np.isnan(problem.i_max_a))}")
    for low, high in (("p_min_kw", "p_max_kw"), ("q_min_kvar", "q_max_kvar")):
        crossed = getattr(injections, low) > getattr(injections, high)
        if crossed.any():
            faults.append(f"{low} is above {high} at {_where(crossed)}")
    if (problem.v_min_pu < 0).any():
        faults.append(f"v_min_pu is negative at {_where(problem.v_min_pu < 0)}")
    of_lines = np.arange(problem.feeder.n_bus) > 0
    if (of_lines & (problem.i_max_a <= 0)).any():
        faults.append(f"i_max_a is not positive at {_where(of_lines & (problem.i_max_a <= 0))}")
    if (problem.v_min_pu > problem.v_max_pu).any():
        faults.append(f"v_min_pu is above v_max_pu at {_where(problem.v_min_pu > problem.v_max_pu)}")
    if (injections.quadratic_per_kw2h < 0).any():
        faults.append(f"quadratic_per_kw2h is negative at {_where(injections.quadratic_per_kw2h < 0)}")
    return faults


def _where(bad: np.ndarray) -> str:
    places = [tuple(int(i) for i in place) for place in np.argwhere(bad)[:5]]
    more = int(bad.sum()) - len(places)
    return f"{places}" + (f" and {more} more" if more else "")
