"""How well later hours are predicted: the error of the price at the own bus by hours ahead, beside plain guesses.

    python benchmarks/prediction_ahead.py [--scenario ieee33] [--days 20]

Held-out days are played by foresighted microgrids. In every interval each asks about its own export of every later one,
as it then comes to be, and the answer is compared with the price that the operator then publishes. The rows differ in
who answers, and in what is supposed of the others, whose exports are not known.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from peergrid.baselines.policies.foresight import Foresighted, Rest, answers_of, plan_against
from peergrid.envs.common.rollout import rollout_of
from peergrid.envs.p2p_trading.outlook import Expected, ask, expected, moving_along, supposed
from peergrid.envs.p2p_trading.predictors import Predictor, no_prediction, oracle
from peergrid.envs.p2p_trading.scenario import build_dso, load_scenario
from peergrid.envs.p2p_trading.simulation import Simulation
from peergrid.envs.p2p_trading.types import Days, State
from peergrid.surrogate.checkpoint import shipped_file
from peergrid.surrogate.predictor import transformer

AHEAD = (0, 1, 2, 4, 7, 12)
Supposing = Callable[[np.ndarray, State, Days], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", default="ieee33")
    parser.add_argument("--days", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    simulation = Simulation(options.scenario, num_envs=options.days, predictor=oracle)
    simulation.reset(options={"evaluation_day": 0})
    params, policy = simulation.params, Foresighted()
    states, exports, prices = [], [], []
    for step in rollout_of(simulation, policy):
        states.append(step.state)
        exports.append(step.outcome.response.accepted_kw)
        prices.append(step.outcome.response.price_per_kwh[:, params.agent_bus])
    days = simulation.running()[1]
    export_kw, price = np.stack(exports, axis=2), np.stack(prices, axis=2)  # [row, agent, time]

    def nought(own_kw: np.ndarray, state: State, days: Days) -> np.ndarray:
        return supposed(own_kw, np.zeros((len(own_kw), 1, own_kw.shape[1])))

    def last_accepted(own_kw: np.ndarray, state: State, days: Days) -> np.ndarray:
        return supposed(own_kw, state.last_accepted_kw[:, None])

    def along(own_kw: np.ndarray, state: State, days: Days) -> np.ndarray:
        return moving_along(own_kw, state, params)

    first, n_days = states[0], len(export_kw)
    coming = expected(first, days, params, params.intervals)
    answer = answers_of(oracle, coming, first, params)
    planned_kw = plan_against(answer, Rest.of(first, days, params), params.microgrids, params).export_kw
    # What each exports at this hour on the other days.
    usual_kw = ((export_kw.sum(axis=0) - export_kw) / max(n_days - 1, 1)).swapaxes(1, 2)

    def day_ahead(own_kw: np.ndarray, state: State, days: Days) -> np.ndarray:
        t = int(state.interval[0])
        return supposed(own_kw, planned_kw[:, t : t + own_kw.shape[2]])

    def usual(own_kw: np.ndarray, state: State, days: Days) -> np.ndarray:
        t = int(state.interval[0])
        return supposed(own_kw, usual_kw[:, t : t + own_kw.shape[2]])

    def known(own_kw: np.ndarray, state: State, days: Days) -> np.ndarray:
        t = int(state.interval[0])
        return supposed(own_kw, export_kw[:, :, t : t + own_kw.shape[2]].swapaxes(1, 2))

    askers: dict[tuple[str, str], tuple[Predictor, Supposing]] = {
        ("nobody (the last price, later the LMP)", ""): (no_prediction, nought),
        ("operator", "nought"): (oracle, nought),
        ("operator", "last accepted"): (oracle, last_accepted),
        ("operator", "as usual at that hour"): (oracle, usual),
        ("operator", "as planned when the day began"): (oracle, day_ahead),
        ("operator", "moving along"): (oracle, along),
        ("operator", "as they come to be"): (oracle, known),
    }
    if shipped_file(build_dso(load_scenario(options.scenario))) is not None:
        askers[("transformer", "moving along")] = (transformer, along)
    errors: dict[tuple[str, str], list[list[np.ndarray]]] = {name: [[] for _ in AHEAD] for name in askers}
    asked_early: dict[str, Supposing] = {"nought": nought, "moving along": along}
    errors |= {("operator, asked the day before", others): [[] for _ in AHEAD] for others in asked_early}
    morning = Expected(
        load_kw=days.load_forecast_kw, load_kvar=days.load_forecast_kvar, lmp_per_kwh=days.lmp_day_ahead_per_kwh
    )
    lmp = days.lmp_day_ahead_per_kwh[:, None, : params.intervals]
    early = {
        others: ask(suppose(export_kw[..., None], states[0], days), morning, states[0], oracle, params).price_per_kwh
        for others, suppose in asked_early.items()
    }
    for state in states:
        t = int(state.interval[0])
        coming = expected(state, days, params, params.intervals - t)
        own_kw, true = export_kw[:, :, t:, None], price[:, :, t:]
        found = {
            name: ask(suppose(own_kw, state, days), coming, state, who, params).price_per_kwh[..., 0]
            for name, (who, suppose) in askers.items()
        }
        for others, said in early.items():
            found["operator, asked the day before", others] = (said[..., 0] - lmp)[:, :, t:] + coming.lmp_per_kwh[
                :, None
            ]
        for name, said in found.items():
            for place, k in enumerate(AHEAD):
                if k < true.shape[2]:
                    errors[name][place].append(np.abs(said[:, :, k] - true[:, :, k]).ravel())
    table = Table(
        title=f"Mean error of the own nodal price on {options.scenario}, per 1000 kWh, by intervals ahead",
        title_justify="left",
    )
    for column in ("who answers", "the others are supposed"):
        table.add_column(column)
    for k in AHEAD:
        table.add_column(f"{k}", justify="right")
    for (who, others), by_place in errors.items():
        table.add_row(who, others, *[f"{1000 * np.concatenate(part).mean():.1f}" for part in by_place])
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
