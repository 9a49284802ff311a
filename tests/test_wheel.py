"""The wheel as a user gets it: built from the sdist, in an environment of its own, away from the repository."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import peergrid
from peergrid.about import commands

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
FIRST = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)[0]


def run(*command, cwd):
    """What a command prints; it must succeed, and does not see the code of the repository."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel from the sdist from a copy of what is tracked."""
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("wheel")
    run("git", "-c", "core.symlinks=false", "clone", "--quiet", ROOT, folder / "clone", cwd=folder)
    run(sys.executable, "-m", "build", "--outdir", folder, folder / "clone", cwd=folder)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def python(wheel):
    """The interpreter of a fresh environment with the wheel and what it asks for."""
    folder = wheel.parent / "venv"
    venv.create(folder, with_pip=True)
    interpreter = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    run(interpreter, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", wheel, cwd=wheel.parent)
    return interpreter


def test_the_wheel_holds_all_data_and_no_tests(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    wanted = [f"peergrid/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "conf").rglob("*.yaml")]
    wanted += [f"peergrid/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "grid" / "data").rglob("*.*")]
    wanted += [f"peergrid/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "surrogate").rglob("*.safetensors")]
    assert len(wanted) > 50 and set(wanted) <= held
    assert {name.split("/")[0] for name in held} == {"peergrid", f"peergrid-{peergrid.__version__}.dist-info"}


def test_the_first_example_runs_elsewhere(python, tmp_path):
    where = "import peergrid; print(peergrid.__file__)\n"
    shown = run(python, "-c", where + FIRST, cwd=tmp_path)
    assert str(ROOT) not in shown.splitlines()[0]
    assert len(shown.splitlines()) > 5


def test_it_says_what_there_is(python, tmp_path):
    shown = run(python, "-m", "peergrid", cwd=tmp_path)
    assert all(name in shown for name in commands())


def test_the_case_studies_run_elsewhere(python, tmp_path):
    arguments = ("scenarios=[ieee33]", "days=1", "workers=1")
    shown = run(python, "-m", "peergrid.baselines.case_studies", *arguments, cwd=tmp_path)
    assert "3 transformer" in shown and (tmp_path / "outputs" / "case_studies" / "results.json").is_file()
