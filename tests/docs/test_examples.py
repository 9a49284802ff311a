"""The Python of the pages runs, and prints what stands below it; in the tutorials the shell's commands run as well.

What stands in a block of `text` is compared, what stands in one of `none` is not: it was printed at full size, or by
what other machines round differently. A line that ends with `# quick: value` is run with that value.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
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
    *sorted(
        str(page.relative_to(ROOT))
        for kind in ("howto", "tutorials")
        for page in (ROOT / "docs" / kind).glob("*.md")
        if page.name != "outside_trainers.md"  # needs libraries that only tests_extra/ has, and is run there
    ),
)
BLOCKS = re.compile(r"```(python|bash)\n(.*?)```(?:\n\n```text\n(.*?)```)?", re.DOTALL)
QUICK = re.compile(r"^(.+?=) ?(.+?)  # quick: (.+)$", re.MULTILINE)


def quick(code: str) -> str:
    """The code with the sizes that stand in its comments."""
    return QUICK.sub(r"\1\3", code)


def test_quick_sizes_replace_those_of_the_page():
    assert quick("STEPS, DAYS = 50_000, 5  # quick: 100, 1\nplay(STEPS)") == "STEPS, DAYS =100, 1\nplay(STEPS)"
    assert quick("N=5  # quick: 2") == "N=2"
    assert quick("N = 5  # five") == "N = 5  # five"


def run_shell(code: str) -> str:
    """What the commands print; `python` is the one that runs the tests."""
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-euc", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("page", PAGES)
def test_examples_run_in_order_and_print_what_stands_below_them(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mpl.use("agg")
    names: dict[str, object] = {"__name__": page}
    text = (ROOT / page).read_text(encoding="utf-8")
    for language, code, expected in BLOCKS.findall(text):
        if language == "bash":
            printed = run_shell(quick(code))
        else:
            with contextlib.redirect_stdout(io.StringIO()) as file:
                exec(compile(quick(code), page, "exec"), names)
            printed = file.getvalue()
        if expected:
            assert printed == expected
    assert names.keys() > {"__name__"}, "there is no Python on the page"
