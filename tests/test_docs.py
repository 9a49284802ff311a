"""Pages agree with the environment that they describe."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from peergrid.baselines.episode import PARTS, Money, play_episode, tables
from peergrid.baselines.policies import NoTrade
from peergrid.envs import p2p_trading_v0, transactive_v0
from peergrid.envs.p2p_trading.infos import INFOS
from peergrid.envs.scenario import scenario_names
from peergrid.envs.transactive import infos, scenario
from peergrid.grid import feeder_names

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "p2p_trading.md").read_text(encoding="utf-8")
TRANSACTIVE = (ROOT / "docs" / "transactive.md").read_text(encoding="utf-8")
SEEING = (ROOT / "docs" / "seeing.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_page_lists_every_entry_of_the_observation_in_order():
    env = p2p_trading_v0.parallel_env(scenario="ieee33")
    entries = env.describe_observation("microgrid_0")
    rows = [f"| {i} | {e.name} | {e.unit} | {e.low:g} | {e.high:g} |" for i, e in enumerate(entries)]
    assert "\n".join(rows) in PAGE
    assert f"| Observation shape | `({len(entries)},)`" in PAGE


def test_the_page_lists_every_info():
    rows = [f"| `{name}` | {unit} | {meaning} |" for name, (unit, meaning) in INFOS.items()]
    assert "\n".join(rows) in PAGE


def test_the_transactive_page_lists_entries_and_infos_in_order():
    env = transactive_v0.parallel_env(roles="both")
    for agent in ("bus_713", "dso"):
        entries = env.describe_observation(agent)
        rows = [f"| {i} | {e.name} | {e.unit} | {e.low:g} | {e.high:g} |" for i, e in enumerate(entries)]
        assert "\n".join(rows) in TRANSACTIVE
        assert f"`({len(entries)},)`" in TRANSACTIVE
    assert f"| State shape | `({len(env.describe_state())},)`" in TRANSACTIVE
    for told in (infos.OWN_INFOS, infos.NETWORK_INFOS):
        rows = [f"| `{name}` | {unit} | {meaning} |" for name, (unit, meaning) in told.items()]
        assert "\n".join(rows) in TRANSACTIVE


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", TRANSACTIVE, re.DOTALL))
def test_the_transactive_page_s_examples_run(code, capsys):
    exec(compile(code, "transactive.md", "exec"), {})
    assert capsys.readouterr().out


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", SEEING, re.DOTALL))
def test_the_examples_of_seeing_an_episode_run(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "seeing.md", "exec"), {})
    assert list(tmp_path.iterdir())


def test_the_page_on_seeing_names_every_column_of_the_tables():
    env = p2p_trading_v0.parallel_env(max_cycles=1)
    columns = {column for table in tables(play_episode(env, NoTrade(), day=0)).values() for column in table.columns}
    by_part = {f"price_{part}_per_kwh" for part in PARTS} | {f"money_{field.name}" for field in fields(Money)}
    assert by_part < columns
    assert [name for name in sorted(columns - by_part) if f"`{name}`" not in SEEING] == []
    assert f"parts {', '.join(PARTS)}" in SEEING
    assert f"parts {', '.join(field.name for field in fields(Money))}" in SEEING


def test_the_readme_names_every_scenario_and_feeder():
    for name in (*scenario_names(), *scenario.scenario_names(), *feeder_names()):
        assert f"`{name}`" in README


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "docs/model.md",
        "docs/p2p_trading.md",
        "docs/case_studies.md",
        "docs/benchmarks.md",
        "docs/surrogate.md",
        "docs/transactive.md",
        "docs/training.md",
        "docs/seeing.md",
    ],
)
def test_links_lead_somewhere(page):
    path = ROOT / page
    for target in re.findall(r"\]\((?!http)([^)#]+)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_the_readme_s_examples_run(code, capsys):
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out
