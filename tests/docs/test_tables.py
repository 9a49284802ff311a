"""What the pages say of spaces, observations, states and infos is what the live environments say."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from peergrid.envs.common.entries import Entry

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = [page for page in sorted(DOCS.rglob("*.md")) if "<!-- table: " in page.read_text(encoding="utf-8")]


@pytest.fixture(scope="module")
def tables():
    spec = importlib.util.spec_from_file_location("tables", DOCS / "tables.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def live(tables):
    return tables.live_tables()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_agrees_with_the_environments(page, tables, live):
    text = page.read_text(encoding="utf-8")
    assert tables.with_tables(text, live) == text, "run python docs/tables.py"


def test_every_table_stands_on_a_page(tables, live):
    shown = [found[2] for page in PAGES for found in tables.MARKED.finditer(page.read_text(encoding="utf-8"))]
    assert sorted(shown) == sorted(live)


def test_another_unit_is_seen(tables):
    entries = (Entry(name="load", unit="kW", low=0.0, high=1.0),)
    page = "<!-- table: load -->\n<!-- end -->"
    written = tables.with_tables(page, {"load": tables.entry_table(entries)})
    assert "| 0 | load | kW | 0 | 1 |" in written
    assert tables.with_tables(written, {"load": tables.entry_table(entries)}) == written
    changed = (Entry(name="load", unit="MW", low=0.0, high=1.0),)
    assert tables.with_tables(written, {"load": tables.entry_table(changed)}) != written
