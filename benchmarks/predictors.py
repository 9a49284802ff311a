"""What a prediction costs in an environment's step: nobody's, the transformer's, the exact DSO's.

    python benchmarks/predictors.py [--scenario ieee33] [--seconds 4]

Prints, on one thread, steps per second and where the time of whole days goes, resets included. All rows of a batch ask
at once, each microgrid about four proposals in every interval, and about three in all intervals when the day begins.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from peergrid.envs.common.registered import PREDICTORS
from peergrid.envs.p2p_trading.scenario import build_dso, load_scenario
from peergrid.envs.p2p_trading.simulation import Simulation
from peergrid.grid.parts import resolve

ROWS = (1, 16, 256)
ROUNDS = 3


class Watch:
    """The seconds that the calls of something took."""

    def __init__(self, watched: Callable[..., Any]) -> None:
        self.watched = watched
        self.seconds = 0.0

    def __call__(self, *args: Any) -> Any:
        start = time.perf_counter()
        answer = self.watched(*args)
        self.seconds += time.perf_counter() - start
        return answer


class Player:
    """An environment that is played with random actions, its predictor and its DSO watched."""

    def __init__(self, scenario: str, predictor: str, rows: int) -> None:
        operator = build_dso(load_scenario(scenario))
        asked = resolve(predictor, "predictor", PREDICTORS)
        # The predictor asks the operator itself, so that its solves count as prediction.
        self.predictor = Watch(lambda question, public: asked(question, replace(public, dso=operator)))
        self.dso = Watch(operator)
        self.simulation = Simulation(scenario, num_envs=rows, predictor=self.predictor, dso=self.dso)
        self.name, self.rows, self.rng = predictor, rows, np.random.default_rng(0)
        self.found: list[tuple[float, float, float]] = []
        self.simulation.reset(seed=0)

    def play(self, seconds: float) -> None:
        """Steps per second, and the shares of predictor and DSO, of whole days for at least so long."""
        steps, spent, of_predictor, of_dso = 0, 0.0, 0.0, 0.0
        while spent < seconds:
            self.predictor.seconds = self.dso.seconds = 0.0
            start = time.perf_counter()
            self.simulation.reset()
            while not self.simulation.is_over.all():
                self.simulation.step(self.rng.uniform(-1.0, 1.0, (self.rows, self.simulation.n_agent, 4)))
                steps += self.rows
            spent += time.perf_counter() - start
            of_predictor, of_dso = of_predictor + self.predictor.seconds, of_dso + self.dso.seconds
        self.found.append((steps / spent, of_predictor / spent, of_dso / spent))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", default="ieee33")
    parser.add_argument("--seconds", type=float, default=4.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    players = [
        Player(options.scenario, predictor, rows) for rows in ROWS for predictor in ("none", "transformer", "oracle")
    ]
    for player in players:
        player.simulation.step(np.zeros((player.rows, player.simulation.n_agent, 4)))  # loads and compiles
        player.found.clear()
    for _ in range(ROUNDS):
        for player in players:
            player.play(options.seconds / ROUNDS)
    table = Table(
        title=f"Environment steps on {options.scenario}, one thread, medians of {ROUNDS}", title_justify="left"
    )
    for name in ("rows", "predictor", "steps/s", "in the predictor", "in the DSO"):
        table.add_column(name, justify="left" if name == "predictor" else "right")
    for player in players:
        rate, of_predictor, of_dso = np.median(player.found, axis=0)
        table.add_row(str(player.rows), player.name, f"{rate:,.0f}", f"{of_predictor:.0%}", f"{of_dso:.0%}")
    Console().print(table)


if __name__ == "__main__":
    main()
