"""The site builds, and every page is in it."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built with warnings as errors: a link to nowhere, an unknown type, a page that nothing leads to."""
    built = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d", built / "trees"]
    result = subprocess.run([*command, ROOT / "docs", built / "html"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return built / "html"


def test_every_page_is_built(site):
    pages = [page.relative_to(ROOT / "docs") for page in (ROOT / "docs").rglob("*.md")]
    assert pages
    assert [str(page) for page in pages if not (site / page.with_suffix(".html")).is_file()] == []


def test_nothing_is_fetched_from_elsewhere(site):
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        for opening in ('<script src="http', '<link rel="stylesheet" href="http', '<img src="http', "//cdn"):
            assert opening not in text, page


def test_formulas_are_drawn_by_the_browser(site):
    assert "<math " in (site / "model.html").read_text(encoding="utf-8")


def test_shapes_are_readable_in_signatures(site):
    text = html.unescape(re.sub("<[^>]+>", "", (site / "api" / "grid.html").read_text(encoding="utf-8")))
    assert "load_kw: Float[ndarray, '*batch bus']" in text
