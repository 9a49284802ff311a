"""What is known: fixed (Params), drawn for a day (Days), handed from one TE iteration to the next (State), happened.

Signs as everywhere: what is injected at a bus is positive. Alone `import_kw` counts what is drawn from the transmission
system. A TE iteration is one round of signals, answers and power flow; an hour takes several.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from jaxtyping import Bool, Float, Int

from peergrid.envs.transactive.resources import Resources, SetPoints
from peergrid.envs.transactive.settlement import Bills
from peergrid.envs.transactive.signal import Rule, SignalBase
from peergrid.grid.dso import Dso, DsoResponse
from peergrid.grid.feeder import Feeder

N_ACTIONS = 3


class Closing(IntEnum):
    """Why an hour was closed, or that it goes on."""

    OPEN = 0
    WITHIN_THRESHOLD = 1
    SIGNAL_STANDS = 2
    OUT_OF_ITERATIONS = 3

    @property
    def sentence(self) -> str:
        return {
            Closing.OPEN: "the hour goes on",
            Closing.WITHIN_THRESHOLD: "the exchange is within the threshold of its schedule",
            Closing.SIGNAL_STANDS: "the signal moves no further: it is at its bound, or is left where it is",
            Closing.OUT_OF_ITERATIONS: "the most iterations were done",
        }[self]


@dataclass(frozen=True, eq=False, kw_only=True)
class Loop:
    """How the root signal may move, and when an hour closes; shares are of the hour's base price or of the schedule."""

    rule: Rule
    signal_base: SignalBase
    step_share: float
    gain: float
    bound_share: float
    threshold_share: float
    max_iterations: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Params:
    """What stays fixed in the scenario's episodes.

    Attributes:
        agent_name: Each agent's bus, with a number where it shares that with others.
        load_share: How much of the load of its bus is an agent's own.
    """

    feeder: Feeder
    agent_name: tuple[str, ...]
    agent_bus: Int[np.ndarray, " agent"]
    load_share: Float[np.ndarray, " agent"]
    resources: Resources
    dso: Dso
    loop: Loop
    imbalance_spread: float
    voll_per_kwh: float
    intervals: int
    step_hours: float
    lookahead: int
    initial_kwh: Float[np.ndarray, " agent"]

    def own_of(self, at_bus: Float[np.ndarray, "*batch bus"]) -> Float[np.ndarray, "*batch agent"]:
        """What of the loads at buses, or of what of them is shed, is each agent's own."""
        return at_bus[..., self.agent_bus] * self.load_share


@dataclass(frozen=True, eq=False, kw_only=True)
class DayAhead:
    """What was agreed the day before.

    Attributes:
        import_kw: P_Sch, the exchange with the transmission system.
        signal_per_kwh: psi of every bus, on which the agents planned.
        exchange_kw: Every agent's net injection, its load included.
        set_points: What the agents planned to do for it.
        cost: What the day would cost if all came as forecast, in currency: energy upstream and resources.
    """

    import_kw: Float[np.ndarray, "*batch interval"]
    signal_per_kwh: Float[np.ndarray, "*batch interval bus"]
    exchange_kw: Float[np.ndarray, "*batch interval agent"]
    set_points: SetPoints
    cost: Float[np.ndarray, "*batch"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Forecast:
    """What is expected of a day on the day before; loads are those of buses, of which agents have their share."""

    load_kw: Float[np.ndarray, "*batch interval bus"]
    load_kvar: Float[np.ndarray, "*batch interval bus"]
    pv_kw: Float[np.ndarray, "*batch interval agent"]
    lmp_per_kwh: Float[np.ndarray, "*batch interval"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Days:
    """What happens in each row's day, what was expected of it, and what was agreed.

    Shiftable power is a share of the load that was forecast, so that it is known and returns by the end of the day:
    `shift_most_kw` bounds it either way. Energies have an entry for each boundary between intervals: how much shifting
    or storage may have delivered or hold there, so that the day can still end as it began.
    """

    load_kw: Float[np.ndarray, "batch interval bus"]
    load_kvar: Float[np.ndarray, "batch interval bus"]
    pv_kw: Float[np.ndarray, "batch interval agent"]
    lmp_per_kwh: Float[np.ndarray, "batch interval"]
    forecast: Forecast
    day_ahead: DayAhead
    shift_most_kw: Float[np.ndarray, "batch interval agent"]
    shifted_most_kwh: Float[np.ndarray, "batch boundary agent"]
    stored_least_kwh: Float[np.ndarray, "batch boundary agent"]
    stored_most_kwh: Float[np.ndarray, "batch boundary agent"]


@dataclass(frozen=True, eq=False, kw_only=True)
class State:
    """What one TE iteration hands to the next; with Params and Days it is everything.

    Attributes:
        interval: The hour that is open.
        iteration: How many iterations it has had; `steps` counts those of the whole episode.
        shifted_kwh: Energy that shifting has delivered so far and that must return.
        root_per_kwh: psi at the substation, to be answered next.
        signal_per_kwh: psi at every bus, to be answered next.
        last_root_per_kwh: What was answered last in this hour; NaN before.
        step_share: How far the rule moves the signal next, as a share of its base.
        gap_kw: What was imported beyond the schedule in the last iteration of this hour; 0 before.
        last_flexible_kw: What the agents' resources injected in the last iteration, also of the hour before.
        last_gap_kw: The gap with which the hour before was closed.
    """

    interval: Int[np.ndarray, " batch"]
    iteration: Int[np.ndarray, " batch"]
    steps: Int[np.ndarray, " batch"]
    stored_kwh: Float[np.ndarray, "batch agent"]
    shifted_kwh: Float[np.ndarray, "batch agent"]
    root_per_kwh: Float[np.ndarray, " batch"]
    signal_per_kwh: Float[np.ndarray, "batch bus"]
    last_root_per_kwh: Float[np.ndarray, " batch"]
    step_share: Float[np.ndarray, " batch"]
    gap_kw: Float[np.ndarray, " batch"]
    last_flexible_kw: Float[np.ndarray, "batch agent"]
    last_gap_kw: Float[np.ndarray, " batch"]
    last_voltage_pu: Float[np.ndarray, "batch bus"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Limits:
    """What each resource can do in an interval, injections positive."""

    shift_least_kw: Float[np.ndarray, "batch agent"]
    shift_most_kw: Float[np.ndarray, "batch agent"]
    storage_least_kw: Float[np.ndarray, "batch agent"]
    storage_most_kw: Float[np.ndarray, "batch agent"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Now:
    """The hour that is open."""

    load_kw: Float[np.ndarray, "batch bus"]
    load_kvar: Float[np.ndarray, "batch bus"]
    pv_kw: Float[np.ndarray, "batch agent"]
    lmp_per_kwh: Float[np.ndarray, " batch"]
    base_per_kwh: Float[np.ndarray, " batch"]
    scheduled_kw: Float[np.ndarray, " batch"]
    limits: Limits


@dataclass(frozen=True, eq=False, kw_only=True)
class Outcome:
    """What happened in a TE iteration; money is zero until the hour is closed.

    Attributes:
        root_per_kwh: psi at the substation that was answered.
        base_per_kwh: From what it started, and around which its bounds lie.
        set_points: What the agents answered, as far as the DSO carried it.
        asked_kw: What their resources were to inject; `response.accepted_kw` is what they do.
        exchange_kw: Net injection of the agents, their loads included; what of it was scheduled the day before is
            `scheduled_exchange_kw`.
        import_kw: P_RT, drawn from the transmission system; `gap_kw` is what of it was not scheduled.
        signal_per_kwh: psi at every bus with the flows that this gives.
        closing: Why the hour is closed, as `Closing`.
        operating_cost: What the agents' resources cost.
        upstream_cost: Paid to the transmission system at both markets.
        total_cost: Of the whole system: upstream, resources, load shed.
        dso_result: What the DSO keeps of what everybody pays.
    """

    interval: Int[np.ndarray, " batch"]
    iteration: Int[np.ndarray, " batch"]
    root_per_kwh: Float[np.ndarray, " batch"]
    base_per_kwh: Float[np.ndarray, " batch"]
    lmp_per_kwh: Float[np.ndarray, " batch"]
    set_points: SetPoints
    asked_kw: Float[np.ndarray, "batch agent"]
    exchange_kw: Float[np.ndarray, "batch agent"]
    scheduled_exchange_kw: Float[np.ndarray, "batch agent"]
    pv_kw: Float[np.ndarray, "batch agent"]
    load_kw: Float[np.ndarray, "batch agent"]
    response: DsoResponse
    import_kw: Float[np.ndarray, " batch"]
    scheduled_kw: Float[np.ndarray, " batch"]
    gap_kw: Float[np.ndarray, " batch"]
    signal_per_kwh: Float[np.ndarray, "batch bus"]
    closing: Int[np.ndarray, " batch"]
    stored_kwh: Float[np.ndarray, "batch agent"]
    shifted_kwh: Float[np.ndarray, "batch agent"]
    bills: Bills
    operating_cost: Float[np.ndarray, "batch agent"]
    upstream_cost: Float[np.ndarray, " batch"]
    total_cost: Float[np.ndarray, " batch"]
    dso_result: Float[np.ndarray, " batch"]
    reward: Float[np.ndarray, "batch agent"]
    dso_reward: Float[np.ndarray, " batch"]
    clipped_kw: Float[np.ndarray, "batch agent"]

    @property
    def welfare(self) -> Float[np.ndarray, " batch"]:
        """Minus the total cost: under this name every market says what an interval was worth to all."""
        return -self.total_cost

    @property
    def is_closed(self) -> Bool[np.ndarray, " batch"]:
        return self.closing != Closing.OPEN
