"""The money identities and empty promises of every mechanism, through the environment's own steps.

    python benchmarks/money_and_promises.py [--steps 1000]

Prints, for each mechanism, the worst relative error of the three identities of docs/model.md over random steps, the
worst energy balance of a microgrid, how far batteries left their window, and what undelivered contracts earned.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from peergrid.envs.common.registered import MECHANISMS
from peergrid.envs.p2p_trading.simulation import Simulation

HOURS = 24
CLAIMED = 1e-9


def errors(mechanism: str, scenario: str, steps: int, seed: int) -> dict[str, float]:
    """The worst errors over random steps."""
    rows = -(-steps // HOURS)
    simulation = Simulation(scenario, num_envs=rows, mechanism=mechanism, predictor="none")
    simulation.reset(seed=seed)
    rng, params = np.random.default_rng(seed), simulation.params
    assert params.step_hours == 1.0
    delta, cap, rho = params.market.half_spread_per_kwh, params.market.price_cap_per_kwh, params.market.retail_per_kwh
    own = params.generators
    worst = dict.fromkeys(("bills", "DSO result", "welfare", "energy [kW]", "battery [kWh]", "empty promise"), 0.0)
    for hour in tqdm(range(HOURS), desc=f"{mechanism}, {scenario}", leave=False, disable=None):
        assert simulation.days is not None
        load_kw, lmp = simulation.days.load_kw[:, hour], simulation.days.lmp_per_kwh[:, hour]
        low_kwh, high_kwh = simulation.days.least_kwh[:, hour + 1], simulation.days.most_kwh[:, hour + 1]
        _, o = simulation.step(rng.uniform(-1.0, 1.0, (rows, simulation.n_agent, 4)))
        r, c, a = o.response, o.contracts.quantity_kw, o.response.accepted_kw
        nodal = np.clip(r.price_per_kwh, -cap, cap)
        price = nodal[:, params.agent_bus]
        bill, q = o.bills.total, a - c
        cost = own.a_per_kw2h * r.generator_kw**2 + own.b_per_kwh * r.generator_kw
        sides = {
            "bills": (bill.sum(-1), (delta * np.abs(q) - price * a).sum(-1)),
            "DSO result": (
                o.dso_result,
                bill.sum(-1)
                + rho * (load_kw - r.shed_kw).sum(-1)
                - lmp * r.substation_kw
                - (nodal[:, list(own.bus)] * r.generator_kw).sum(-1),
            ),
            "welfare": (
                o.welfare,
                (o.gain + bill).sum(-1)
                - lmp * r.substation_kw
                - cost.sum(-1)
                - params.voll_per_kwh * r.shed_kw.sum(-1)
                - params.c_ls_per_kw2h * (r.shed_kw**2).sum(-1),
            ),
        }
        in_play = np.abs(bill).sum(-1) + np.abs(price * a).sum(-1) + lmp * np.abs(r.substation_kw) + 1e-6
        for name, (left, right) in sides.items():
            worst[name] = max(worst[name], float((np.abs(left - right) / in_play).max()))
        d = o.dispatch
        balance = np.abs(d.pv_kw + d.diesel_kw + d.battery_kw - d.load_kw - a)
        worst["energy [kW]"] = max(worst["energy [kW]"], float(balance.max()))
        outside = np.maximum(low_kwh - o.stored_kwh, o.stored_kwh - high_kwh)
        worst["battery [kWh]"] = max(worst["battery [kWh]"], float(outside.max()))
        # The undelivered part of a contract, all else equal: what it earned at its price and its penalty.
        backed = np.clip(c, np.minimum(a, 0.0), np.maximum(a, 0.0))
        upstream, pi = nodal[:, :1], o.contracts.price_per_kwh

        def bill_of(contract: np.ndarray, upstream=upstream, pi=pi, price=price, a=a) -> np.ndarray:
            return (upstream - pi) * contract - price * a + delta * np.abs(a - contract)

        earned = bill_of(backed) - bill_of(c)
        worst["empty promise"] = max(worst["empty promise"], float(earned.max()))
    return worst


def main() -> None:
    """Print the table; exit with 1 if a claim fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000, help="random steps of every mechanism and scenario")
    steps = parser.parse_args().steps
    grid = Table(title=f"Worst over {steps} random steps: relative errors of money, kW, kWh, and currency earned")
    failed = False
    for mechanism in MECHANISMS:
        for scenario in ("ieee33", "ieee33_communities"):
            found = errors(mechanism, scenario, steps, seed=1)
            if not grid.columns:
                for name in ("mechanism", "scenario", *found):
                    grid.add_column(name, no_wrap=True)
            grid.add_row(mechanism, scenario, *[f"{value:.1e}" for value in found.values()])
            failed |= max(found[name] for name in ("bills", "DSO result", "welfare")) > CLAIMED
            failed |= max(found["energy [kW]"], found["battery [kWh]"], found["empty promise"]) > 1e-6
    Console(width=130).print(grid)
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
