"""Tables of the pages, written from the live environments: spaces, observations, states, infos, signatures.

    python docs/tables.py            rewrites them
    python docs/tables.py --check    says which pages differ, and exits with 1

A table stands between `<!-- table: name -->` and `<!-- end -->`.
"""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import gymnasium as gym

import peergrid  # noqa: F401  (registers the environments)
from peergrid.envs import p2p_trading_v0, transactive_v0
from peergrid.envs.common.entries import Entry
from peergrid.envs.p2p_trading.gymnasium import SoloTrading
from peergrid.envs.p2p_trading.infos import INFOS
from peergrid.envs.p2p_trading.scenario import load_scenario, scenario_names
from peergrid.envs.transactive.gymnasium import DsoPricing
from peergrid.envs.transactive.infos import NETWORK_INFOS, OWN_INFOS

DOCS = Path(__file__).parent
MARKED = re.compile(r"(<!-- table: (.+?) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing, and fail where a page differs")
    check = parser.parse_args().check
    tables = live_tables()
    for page in sorted(DOCS.rglob("*.md")):
        old = page.read_text(encoding="utf-8")
        new = with_tables(old, tables)
        if old != new and not check:
            page.write_text(new, encoding="utf-8")
            print(f"{page.name} was rewritten")
        elif old != new:
            raise SystemExit(f"{page.name} and the environments differ: python docs/tables.py")


def with_tables(page: str, tables: Mapping[str, str]) -> str:
    """The page with what stands between markers replaced by the tables of these names."""
    return MARKED.sub(lambda found: f"{found[1]}\n{tables[found[2]]}\n\n{found[4]}", page)


def live_tables() -> dict[str, str]:
    """Every table by its name, as Markdown."""
    p2p, both = p2p_trading_v0.parallel_env(), transactive_v0.parallel_env(roles="both")
    central, solo, pricing = (
        gym.make(f"peergrid/{name}-v0").unwrapped for name in ("CentralTrading", "SoloTrading", "DsoPricing")
    )
    agent, bus = p2p.possible_agents[0], both.possible_agents[0]
    return {
        "scenarios of p2p_trading": scenario_table(),
        "spaces of p2p_trading": spaces_table(
            {"microgrid": (p2p.action_space(agent), p2p.observation_space(agent))}, p2p
        ),
        "observation of p2p_trading": entry_table(p2p.describe_observation(agent)),
        "state of p2p_trading": state_table(p2p),
        "infos of p2p_trading": info_table(INFOS),
        "signature of p2p_trading": signature(p2p_trading_v0.parallel_env, "p2p_trading_v0.parallel_env"),
        "spaces of CentralTrading": spaces_table({"controller": (central.action_space, central.observation_space)}),
        "observation of CentralTrading": block_table(
            {a: len(p2p.describe_observation(a)) for a in p2p.possible_agents}, "what it observes in p2p_trading"
        ),
        "actions of CentralTrading": block_table(
            {a: p2p.action_space(a).shape[0] for a in p2p.possible_agents}, "what it does in p2p_trading"
        ),
        "spaces of SoloTrading": spaces_table({"learner": (solo.action_space, solo.observation_space)}),
        "signature of SoloTrading": signature(SoloTrading, 'gymnasium.make("peergrid/SoloTrading-v0"'),
        "spaces of transactive": spaces_table(
            {name: (both.action_space(a), both.observation_space(a)) for name, a in (("agent", bus), ("`dso`", "dso"))},
            both,
        ),
        "observation of transactive": entry_table(both.describe_observation(bus)),
        "observation of the DSO": entry_table(both.describe_observation("dso")),
        "state of transactive": state_table(both),
        "infos of transactive, own": info_table(OWN_INFOS),
        "infos of transactive, network": info_table(NETWORK_INFOS),
        "signature of transactive": signature(transactive_v0.parallel_env, "transactive_v0.parallel_env"),
        "spaces of DsoPricing": spaces_table({"DSO": (pricing.action_space, pricing.observation_space)}),
        "observation of DsoPricing": entry_table(pricing.describe_observation()),
        "infos of DsoPricing": info_table({name: NETWORK_INFOS[name] for name in pricing.player.info_names}),
        "signature of DsoPricing": signature(DsoPricing, 'gymnasium.make("peergrid/DsoPricing-v0"'),
    }


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def entry_table(entries: Sequence[Entry]) -> str:
    """Index, name, unit and range of every entry."""
    rows = [(i, e.name, e.unit, f"{e.low:g}", f"{e.high:g}") for i, e in enumerate(entries)]
    return table(("index", "entry", "unit", "low", "high"), rows)


def info_table(infos: Mapping[str, tuple[str, str]]) -> str:
    """Name, unit and meaning of every info."""
    return table(("info", "unit", "meaning"), [(f"`{name}`", *told) for name, told in infos.items()])


def spaces_table(of: Mapping[str, tuple[gym.Space[Any], gym.Space[Any]]], env: Any = None) -> str:
    """Action and observation space of each kind of player; of an environment with agents these and its state."""
    rows = []
    for who, (acts, observes) in of.items():
        rows += [(f"{who}: acts in", f"`{text(acts)}`"), (f"{who}: observes", f"`{text(observes)}`")]
    if env is not None:
        rows += [("agents", ", ".join(f"`{a}`" for a in env.possible_agents)), ("state", f"`{text(env.state_space)}`")]
    return table(("", "space"), rows)


def text(space: gym.Space[Any]) -> str:
    """A box in short: its bounds where all entries share them, else those of the entries apart."""
    low, high = ({float(x) for x in bound} for bound in (space.low, space.high))
    limits = f"{low.pop():g}, {high.pop():g}" if len(low) == len(high) == 1 else "low, high"
    return f"Box({limits}, {space.shape}, {space.dtype})"


def block_table(sizes: Mapping[str, int], what: str) -> str:
    """Which entries of a flat array belong to which agent."""
    rows, start = [], 0
    for agent, size in sizes.items():
        rows.append((f"{start} to {start + size - 1}", f"`{agent}`: {what}"))
        start += size
    return table(("index", "entries"), rows)


def state_table(env: Any) -> str:
    """The entries of a state in blocks: what every agent observes, then what is told of every bus."""
    entries, start, rows = env.describe_state(), 0, []
    for agent in env.possible_agents:
        size = len(env.describe_observation(agent))
        rows.append((f"{start} to {start + size - 1}", f"what `{agent}` observes", "", "", ""))
        start += size
    for what, block in groupby(entries[start:], key=lambda entry: entry.name.split(": ", 1)[1]):
        one, *others = block
        stop = start + len(others)
        rows.append((f"{start} to {stop}", f"{what} of every bus", one.unit, f"{one.low:g}", f"{one.high:g}"))
        start = stop + 1
    return table(("index", "entries", "unit", "low", "high"), rows)


def scenario_table() -> str:
    """Every shipped scenario with its feeder, its microgrids and the buses at which they are."""
    rows = []
    for name in scenario_names():
        s = load_scenario(name)
        buses = ", ".join(m.bus for m in s.microgrids)
        rows.append((f"`{name}`", f"`{s.network.feeder}`", len(s.microgrids), buses, f"{s.scale:g}"))
    return table(("scenario", "feeder", "microgrids", "at buses", "scale"), rows)


def signature(of: Any, call: str) -> str:
    """How it is called, with defaults, as a block of code."""
    parameters = inspect.signature(of).parameters.values()
    arguments = [f"**{p.name}" if p.kind is p.VAR_KEYWORD else f"{p.name}={literal(p.default)}" for p in parameters]
    opened = call if "(" in call else f"{call}("
    start = [] if opened.endswith("(") else [opened.split("(", 1)[1]]
    lines = "".join(f"    {argument},\n" for argument in start + arguments)
    return f"```text\n{opened.split('(', 1)[0]}(\n{lines})\n```"


def literal(value: object) -> str:
    """How a default is written in code."""
    return f'"{value}"' if isinstance(value, str) else repr(value)


if __name__ == "__main__":
    main()
