"""Links of the pages lead somewhere, also where they are read without the site."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from peergrid.baselines.episode.p2p import PARTS, Money, play_episode, tables
from peergrid.baselines.policies.fixed import NoTrade
from peergrid.envs import p2p_trading_v0
from peergrid.envs.p2p_trading.scenario import scenario_names
from peergrid.envs.transactive import scenario
from peergrid.grid import feeder_names

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def anchor(heading: str) -> str:
    """What GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for path, place in re.findall(r"\]\((?!http)([^)#]*)#?([^)]*)\)", page.read_text(encoding="utf-8")):
        target = page.parent / path if path else page
        assert target.exists(), path
        if place:
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert place in map(anchor, headings), f"{path}#{place}"


def test_the_readme_names_every_scenario_and_feeder():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in (*scenario_names(), *scenario.scenario_names(), *feeder_names()):
        assert f"`{name}`" in text


def test_the_page_on_seeing_names_every_column_of_the_tables():
    text = (ROOT / "docs" / "seeing.md").read_text(encoding="utf-8")
    env = p2p_trading_v0.parallel_env(max_cycles=1)
    columns = {column for table in tables(play_episode(env, NoTrade(), day=0)).values() for column in table.columns}
    by_part = {f"price_{part}_per_kwh" for part in PARTS} | {f"money_{field.name}" for field in fields(Money)}
    assert by_part < columns
    assert [name for name in sorted(columns - by_part) if f"`{name}`" not in text] == []
    assert f"parts {', '.join(PARTS)}" in text
    assert f"parts {', '.join(field.name for field in fields(Money))}" in text
