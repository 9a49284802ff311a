"""What there is: scenarios, environments, policies, predictors, mechanisms, feeders, commands.

    python -m peergrid [--json]

Everything is read from where it is registered and from what it says of itself.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from importlib import resources
from itertools import takewhile
from typing import Any

import gymnasium
import pettingzoo
from rich.console import Console
from rich.table import Table

from peergrid import __version__, about
from peergrid.envs.common.registered import DSOS, MECHANISMS, POLICIES, PREDICTORS, RULES, TRANSACTIVE_POLICIES
from peergrid.envs.p2p_trading import scenario
from peergrid.envs.transactive import scenario as transactive
from peergrid.grid.catalogue import feeder_names, load_feeder
from peergrid.grid.dso import SOLVERS

NARROWEST = 110
Row = dict[str, Any]


def catalogue() -> dict[str, list[Row]]:
    """Everything that can be chosen, by kind; each row has a name, what it is, and what else there is to know."""
    return {
        "commands": [_told(f"python -m {name}", name) for name in about.commands()],
        "environments": environments(),
        "scenarios of p2p_trading": [_p2p_scenario(name) for name in scenario.scenario_names()],
        "scenarios of transactive": [_transactive_scenario(name) for name in transactive.scenario_names()],
        "policies of p2p_trading": _parts(POLICIES),
        "policies of transactive": _parts(TRANSACTIVE_POLICIES),
        "predictors": _parts(PREDICTORS),
        "mechanisms": _parts(MECHANISMS),
        "operators (dso)": _parts(DSOS),
        "rules of the price signal": _parts(RULES),
        "solvers of the optimal power flow": [_told(name, at.split(":")[0]) for name, at in SOLVERS.items()],
        "feeders": [_feeder(name) for name in feeder_names()],
    }


def environments() -> list[Row]:
    """The environments that peergrid registered, and how each is made."""
    found = []
    for name, spec in pettingzoo.parallel_registry.items():
        if name.startswith("peergrid/"):
            module = str(spec.entry_point).partition(":")[0]
            row = _told(name, str(spec.entry_point))
            found.append(row | {"make": f"{module}.parallel_env()"})
    for name, one in gymnasium.registry.items():
        if name.startswith("peergrid/"):
            found.append(_told(name, str(one.entry_point)) | {"make": f'gymnasium.make("{name}")'})
    return found


def _told(name: str, target: str) -> Row:
    return {"name": name, "about": about.first_sentence(about.docstring(target))}


def _parts(registered: Mapping[str, str]) -> list[Row]:
    return [_told(name, target) for name, target in registered.items()]


def _p2p_scenario(name: str) -> Row:
    one = scenario.load_scenario(name)
    size = {"buses": load_feeder(one.network.feeder).n_bus, "microgrids": len(one.microgrids)}
    return {"name": name, "about": _comment(scenario.GROUP, name)} | size


def _transactive_scenario(name: str) -> Row:
    one = transactive.load_scenario(name)
    size = {"buses": load_feeder(one.network.feeder).n_bus, "agents": len(one.agents)}
    return {"name": name, "about": _comment(transactive.GROUP, name)} | size


def _feeder(name: str) -> Row:
    feeder = load_feeder(name)
    return {"name": name, "about": feeder.title, "buses": feeder.n_bus}


def _comment(group: str, name: str) -> str:
    """What a scenario's file says of it at its head."""
    lines = (resources.files("peergrid.conf") / group / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    return about.first_sentence(" ".join(line.lstrip("# ") for line in takewhile(lambda x: x.startswith("#"), lines)))


def table(kind: str, rows: list[Row]) -> Table:
    """The rows of a kind as a table."""
    grid = Table(title=kind, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    for column in rows[0]:
        is_name, is_number = column in ("name", "make"), isinstance(rows[0][column], int)
        grid.add_column(column, justify="right" if is_number else "left", no_wrap=is_name or is_number)
    for row in rows:
        grid.add_row(*(str(value) for value in row.values()))
    return grid


def main() -> None:
    """Print what there is, as tables or as JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m peergrid", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="for machines: one object, with a list for each kind")
    parser.add_argument("--version", action="version", version=__version__)
    as_json, found = parser.parse_args().json, catalogue()
    if as_json:
        print(json.dumps({"version": __version__} | found, indent=2))
        return
    console = Console(width=max(Console().width, NARROWEST), highlight=False)
    console.print(f"peergrid {__version__}\n")
    for kind, rows in found.items():
        console.print(table(kind, rows), "")
    console.print(
        "Every command takes --help. The names are arguments of the environments: parallel_env(scenario=...)."
    )


if __name__ == "__main__":
    main()
