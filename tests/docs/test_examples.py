"""The Python of the pages runs, and prints what stands below it."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    "README.md",
    "docs/index.md",
    "docs/central_trading.md",
    "docs/dso_pricing.md",
    "docs/p2p_trading.md",
    "docs/seeing.md",
    "docs/solo_trading.md",
    "docs/surrogate.md",
    "docs/transactive.md",
    *sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs" / "howto").glob("*.md")),
)
BLOCKS = re.compile(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_examples_run_in_order_and_print_what_stands_below_them(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": page}
    text = (ROOT / page).read_text(encoding="utf-8")
    for code, expected in BLOCKS.findall(text):
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(code, page, "exec"), names)
        if expected:
            assert printed.getvalue() == expected
    assert names.keys() > {"__name__"}, "there is no Python on the page"
