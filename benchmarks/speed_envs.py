"""Steps per second of the environments, where their time goes, and what other environments reach.

A step of ours has an optimal power flow with prices in it, those of the peers an AC power flow: read what each does.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
from matplotlib.figure import Figure
from speed_common import Found, Table, duration, missing, run_section, table, three_digits
from tqdm import tqdm

from peergrid.envs import p2p_trading_v0
from peergrid.envs.p2p_trading.scenario import build_dso, load_scenario
from peergrid.grid import Dso, DsoQuery, DsoResponse

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    try:
        import grid2op
        from grid2op.Backend import PandaPowerBackend
    except ImportError:
        grid2op = None
    try:
        from lightsim2grid import LightSimBackend
    except ImportError:
        LightSimBackend = None
    try:
        import gym_anm
    except ImportError:
        gym_anm = None

SCENARIO = "ieee33"
CENTRAL = "peergrid/CentralTrading-v0"
ROWS = (1, 16, 64, 256)
SECONDS_PER_ROUND, ROUNDS = 0.8, 5
GRID2OP = "l2rpn_case14_sandbox"
GYM_ANM = "ANM6Easy-v0"


class Stopwatch:
    """The time spent in a DSO, kept apart from what the DSO is copied or handed to."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __deepcopy__(self, memo: object) -> Stopwatch:
        return self


@dataclass(frozen=True)
class TimedDso:
    """A DSO, and how long it took to answer."""

    dso: Dso
    watch: Stopwatch

    def __call__(self, query: DsoQuery) -> DsoResponse:
        start = time.perf_counter()
        response = self.dso(query)
        self.watch.seconds += time.perf_counter() - start
        return response


@dataclass
class Played:
    """Time of one round: in steps that play an interval, in resets, in the DSO; and the steps, over all rows."""

    steps: int = 0
    step_seconds: float = 0.0
    reset_seconds: float = 0.0
    dso_seconds: float = 0.0


@dataclass
class Player:
    """An environment and how to play it: `act` draws an action, `step` plays it and says whether the episode is over.

    A vector environment begins anew by itself, in the step after the last.
    """

    name: str
    note: str
    reset: Callable[[], Any]
    act: Callable[[], Any]
    step: Callable[[Any], bool]
    rows: int = 1
    begins_by_itself: bool = False
    watch: Stopwatch | None = None
    over: bool = True
    rounds: list[Played] = field(default_factory=list)

    def play(self, seconds: float) -> Played:
        """Play for about so long; episodes begin and end as they do."""
        played, end = Played(), time.perf_counter() + seconds
        dso_before = self.watch.seconds if self.watch else 0.0
        while time.perf_counter() < end or not played.steps:
            action = self.act()
            start = time.perf_counter()
            if self.over and not self.begins_by_itself:
                self.reset()
                self.over = False
                played.reset_seconds += time.perf_counter() - start
                continue
            begins, self.over = self.over, self.step(action)
            spent = time.perf_counter() - start
            if begins:
                played.reset_seconds += spent
            else:
                played.step_seconds += spent
                played.steps += self.rows
        if self.watch:
            played.dso_seconds = self.watch.seconds - dso_before
        return played


def measure(quick: bool) -> Found:
    """Steps per second of every environment, in turns."""
    players = [pettingzoo_player(), pettingzoo_player("oracle"), central_player()]
    rows = ROWS[:2] if quick else ROWS
    players += [vector_player(n) for n in rows]
    players += [vector_player(rows[1], "oracle"), vector_player(rows[1], loop=True)]
    peers, absent = peer_players()
    players += peers
    for player in players:
        player.play(0.0 if quick else SECONDS_PER_ROUND)
    for _ in tqdm(range(1 if quick else ROUNDS), desc="environments", leave=False, disable=None):
        for player in players:
            player.rounds.append(player.play(SECONDS_PER_ROUND))
    scenario = load_scenario(SCENARIO)
    found = {"solver": scenario.dso.solver, "rows": [summary(player) for player in players] + absent}
    return found | {"n_agent": len(scenario.microgrids), "n_bus": build_dso(scenario).feeder.n_bus}


def summary(player: Player) -> Found:
    """Median rates over the rounds, and the DSO's share of the time in steps."""
    rounds = player.rounds
    rates = [r.steps / r.step_seconds for r in rounds]
    low, middle, high = np.quantile(rates, (0.1, 0.5, 0.9))
    found = {
        "name": player.name,
        "note": player.note,
        "rows": player.rows,
        "steps_per_second": float(middle),
        "low": float(low),
        "high": float(high),
        "with_resets": float(np.median([r.steps / (r.step_seconds + r.reset_seconds) for r in rounds])),
    }
    if player.watch:
        found["dso_share"] = float(np.median([r.dso_seconds / (r.step_seconds + r.reset_seconds) for r in rounds]))
    return found


def timed_dso() -> TimedDso:
    return TimedDso(build_dso(load_scenario(SCENARIO)), Stopwatch())


def pettingzoo_player(predictor: str = "none") -> Player:
    """Our dictionaries of one row."""
    dso = timed_dso()
    env = p2p_trading_v0.parallel_env(scenario=SCENARIO, dso=dso, predictor=predictor)
    spaces = {agent: env.action_space(agent) for agent in env.possible_agents}
    env.reset(seed=0)
    return Player(
        f"peergrid, PettingZoo{_seen(predictor)}",
        "OPF and prices",
        env.reset,
        lambda: {agent: space.sample() for agent, space in spaces.items()},
        lambda actions: bool(env.step(actions) and not env.agents),
        watch=dso.watch,
    )


def central_player() -> Player:
    """Our central controller."""
    dso = timed_dso()
    env = gymnasium.make(CENTRAL, scenario=SCENARIO, dso=dso)
    return _gymnasium_player("peergrid, Gymnasium", "OPF and prices", env, watch=dso.watch)


def vector_player(n: int, predictor: str = "none", loop: bool = False) -> Player:
    """Our central controller in n rows: stepped together, or by Gymnasium one after the other."""
    dso = timed_dso()
    mode = gymnasium.VectorizeMode.SYNC if loop else None
    env = gymnasium.make_vec(CENTRAL, n, mode, scenario=SCENARIO, dso=dso, predictor=predictor)
    env.reset(seed=0)

    def step(actions: np.ndarray) -> bool:
        _, _, terminated, truncated, _ = env.step(actions)
        return bool((terminated | truncated).all())

    return Player(
        f"peergrid, Gymnasium vector of {n}{', one by one' if loop else ''}{_seen(predictor)}",
        f"OPF and prices in each row; {type(env.unwrapped).__name__}",
        env.reset,
        env.action_space.sample,
        step,
        rows=n,
        begins_by_itself=True,
        watch=dso.watch,
        over=False,
    )


def _seen(predictor: str) -> str:
    return "" if predictor == "none" else f", predictor {predictor}"


def _gymnasium_player(name: str, note: str, env: Any, watch: Stopwatch | None = None) -> Player:
    def step(action: Any) -> bool:
        _, _, terminated, truncated, _ = env.step(action)
        return terminated or truncated

    env.reset(seed=0)
    return Player(name, note, env.reset, env.action_space.sample, step, watch=watch)


def peer_players() -> tuple[list[Player], list[Found]]:
    """Environments of others, and rows for those that are not installed."""
    players: list[Player] = []
    absent: list[Found] = []
    names = {"lightsim2grid": LightSimBackend, "pandapower": PandaPowerBackend if grid2op else None}
    for backend_name, backend in names.items():
        name = f"Grid2Op, {backend_name}"
        if grid2op is None or backend is None:
            absent.append(missing(name))
        else:
            players.append(grid2op_player(name, backend))
    if gym_anm is None:
        absent.append(missing(f"gym-anm, {GYM_ANM}"))
    else:
        env = gymnasium.make(f"gym_anm:{GYM_ANM}")
        note = "random actions; AC power flow of 6 buses, its own Newton's method in Python"
        players.append(_gymnasium_player(f"gym-anm, {GYM_ANM}", note, env))
    return players, absent


def grid2op_player(name: str, backend: Any) -> Player:
    """Grid2Op's 14 substations, doing nothing; its built-in copy of the environment, with a few days of data."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        env = grid2op.make(GRID2OP, test=True, backend=backend())
    nothing = env.action_space()
    note = f"{GRID2OP}, doing nothing; AC power flow of {env.n_sub} substations, rules and protections"
    return Player(name, note, env.reset, lambda: nothing, lambda action: env.step(action)[2])


def tables(found: Found) -> list[Table]:
    """One line for each environment."""
    columns = {
        "environment": lambda row: row["name"],
        "steps/s": lambda row: three_digits(row["steps_per_second"]),
        "10-90 %": lambda row: f"{three_digits(row['low'])} - {three_digits(row['high'])}",
        "with resets": lambda row: three_digits(row["with_resets"]),
        "per step": lambda row: duration(1.0 / row["steps_per_second"]),
        "in the DSO": lambda row: f"{100 * row['dso_share']:.0f} %",
        "what": lambda row: row["note"],
    }
    return [table(f"Environments; ours on {SCENARIO}, solver {found['solver']}", columns, found["rows"])]


def figures(found: Found) -> dict[str, Figure]:
    """None."""
    return {}


if __name__ == "__main__":
    run_section(measure)
