"""How fast peergrid is, next to others, on this machine.

    python benchmarks/speed.py                      # everything, about ten minutes; rewrites docs/benchmarks.md
    python benchmarks/speed.py --only opf growth    # some of it
    python benchmarks/speed.py --quick              # a glance, written to outputs/speed instead
    python benchmarks/speed.py --draw               # tables and figures anew from the figures measured last

Sections run one after the other, each in its own process and on one thread unless it says otherwise. Peers that are not
installed are left out: `pip install -e '.[bench]'`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import speed_envs
import speed_growth
import speed_opf
import speed_start
import speed_threads
from rich.console import Console
from rich.table import Table as RichTable
from speed_common import Found, Table

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent / "docs"
WRITTEN = HERE / "speed.json", DOCS / "benchmarks.md", DOCS / "images"
QUICK = HERE.parent / "outputs" / "speed"
SECTIONS: dict[str, ModuleType] = {
    "opf": speed_opf,
    "growth": speed_growth,
    "threads": speed_threads,
    "envs": speed_envs,
    "start": speed_start,
}
# Libraries below NumPy and Clarabel keep to one thread; Numba's own threads are peergrid's to choose.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"), "1")


def measured(section: str, quick: bool) -> Found:
    """What a section finds, in a process of its own: what the others loaded and compiled is no part of it."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "found.json"
        command = [sys.executable, str(HERE / f"speed_{section}.py"), "--to", str(answer)]
        subprocess.run(command + ["--quick"] * quick, env={**os.environ, **ONE_THREAD}, check=True)
        return json.loads(answer.read_text(encoding="utf-8"))


def machine_line(found: Found) -> str:
    """The machine and the versions behind a section's figures."""
    m = found["machine"]
    vectors = f" with {m['vectors']}" if m["vectors"] else ""
    versions = ", ".join(f"{name} {version}" for name, version in m["versions"].items())
    return (
        f"{m['processor']}{vectors}, {m['cores']} cores, {m['memory_gib']:.0f} GiB, {m['system']}; "
        f"Python {m['python']}, {versions}"
    )


def machines(known: dict[str, Found]) -> str:
    """What every section was measured on, in as few lines as that takes."""
    sections: dict[str, list[str]] = {}
    for section, found in known.items():
        sections.setdefault(machine_line(found), []).append(section)
    loads = ", ".join(f"{found['machine']['load_before']:.1f}" for found in known.values())
    minutes = sum(found["took_seconds"] for found in known.values()) / 60
    lines = [f"{', '.join(names)}: {line}." for line, names in sections.items()]
    return "\n\n".join([*lines, f"All took {minutes:.1f} minutes; the machine's load before each section was {loads}."])


def show(console: Console, shown: Table) -> None:
    grid = RichTable(title=shown.title, title_justify="left")
    for heading, is_words in zip(shown.columns, shown.is_words, strict=True):
        grid.add_column(heading, justify="left" if is_words else "right")
    for row in shown.rows:
        grid.add_row(*row)
    console.print(grid)


def write_page(page: Path, name: str, text: str) -> None:
    """Put a text between the markers of that name, or at the end of a page without them."""
    begin, end = f"<!-- {name}: written by benchmarks/speed.py -->", f"<!-- end of {name} -->"
    written = page.read_text(encoding="utf-8") if page.is_file() else ""
    if begin not in written:
        written += f"\n{begin}{end}\n"
    before, _, rest = written.partition(begin)
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{rest.partition(end)[2]}", encoding="utf-8")


def main() -> None:
    """Measure what is asked for, print it, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--quick", action="store_true", help="little is repeated: to see that it runs")
    parser.add_argument("--draw", action="store_true", help="measure nothing")
    args = parser.parse_args()
    results, page, images = (QUICK / "speed.json", QUICK / "benchmarks.md", QUICK) if args.quick else WRITTEN
    images.mkdir(parents=True, exist_ok=True)
    known: dict[str, Found] = json.loads(results.read_text(encoding="utf-8")) if results.is_file() else {}
    console = Console(width=None if sys.stdout.isatty() else 180)
    for section in args.only:
        if not args.draw:
            known[section] = measured(section, args.quick)
            results.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
        found = known[section]
        tables = SECTIONS[section].tables(found)
        for shown in tables:
            show(console, shown)
        write_page(page, section, "\n\n".join(shown.markdown() for shown in tables))
        for name, figure in SECTIONS[section].figures(found).items():
            figure.savefig(images / f"{name}.png", dpi=150)
    write_page(page, "machine", machines(known))
    console.print(machines(known))


if __name__ == "__main__":
    main()
