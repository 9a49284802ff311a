"""Guards for the mapping of folders to packages, and for the direction of imports."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ("grid", "envs", "surrogate", "baselines")  # each may import itself and those before it
ROOMS = ("policies", "episode", "scoring", "adapters", "training", "studies")  # likewise, in baselines
FILES = [file for layer in LAYERS for file in sorted((ROOT / layer).rglob("*.py"))]
LATE = ("torch", "numba", "cvxpy", "pandas", "matplotlib")
FORBIDDEN = {
    "grid": ("torch", "gymnasium", "hydra", "pettingzoo", "ray", "stable_baselines3"),
    "envs": ("torch", "hydra", "ray", "stable_baselines3"),
}
# Modules for what the tests do without, the package that each needs, and the extra that brings it.
OPTIONAL = {
    "peergrid.baselines.adapters.minari": ("minari", "data"),
    "peergrid.baselines.adapters.rllib": ("ray", "rllib"),
    "peergrid.baselines.adapters.torchrl": ("torchrl", "marl"),
    "peergrid.baselines.adapters.benchmarl": ("torchrl", "marl"),
    "peergrid.baselines.training.benchmarl": ("torchrl", "marl"),
    "peergrid.baselines.adapters.tianshou": ("tianshou", "tianshou"),
}


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(("peergrid", *(parts[:-1] if parts[-1] == "__init__" else parts)))


def imported(file: Path) -> Iterator[str]:
    """Full names of what a file imports anywhere in it, functions included."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def python(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True)


def test_every_subpackage_is_listed():
    with (ROOT / "pyproject.toml").open("rb") as file:
        listed = tomllib.load(file)["tool"]["setuptools"]["packages"]
    found = {module_name(file.parent / "__init__.py") for file in FILES}
    assert set(listed) == found | {"peergrid", "peergrid.conf"}


def test_every_folder_with_code_has_an_init():
    assert [str(file) for file in FILES if not (file.parent / "__init__.py").is_file()] == []


@pytest.mark.parametrize("folder", (*LAYERS, "conf"))
def test_links_show_every_folder_to_type_checkers(folder):
    link = ROOT / "src" / "peergrid" / folder
    if not link.is_dir():
        pytest.skip("a checkout without symlinks: mypy and pyright see nothing")
    assert link.resolve() == ROOT / folder


def test_packages_are_found_outside_the_repository(tmp_path):
    code = f"from importlib.util import find_spec; assert all(find_spec('peergrid.' + x) for x in {(*LAYERS, 'conf')})"
    assert python(code, tmp_path).returncode == 0


@pytest.mark.parametrize("folder", (*LAYERS, "conf"))
def test_no_file_imports_a_folder_by_its_bare_name(folder):
    # It would load a second copy of the package, whose classes are not the first one's.
    files = [*FILES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    assert [str(file) for file in files if any(name.split(".")[0] == folder for name in imported(file))] == []


@pytest.mark.parametrize("layer", LAYERS)
def test_no_import_points_up(layer):
    above = tuple(f"peergrid.{upper}" for upper in LAYERS[LAYERS.index(layer) + 1 :])
    upward = [
        f"{module_name(file)} imports {name}"
        for file in FILES
        if file.relative_to(ROOT).parts[0] == layer
        for name in imported(file)
        if ".".join(name.split(".")[:2]) in above
    ]
    assert upward == []


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_of_the_baselines_import_only_those_before_them(room):
    known = {f"peergrid.baselines.{before}" for before in ROOMS[: ROOMS.index(room) + 1]}
    others = [
        f"{module_name(file)} imports {name}"
        for file in FILES
        if file.relative_to(ROOT).parts[:2] == ("baselines", room)
        for name in imported(file)
        if name.startswith("peergrid.baselines.") and ".".join(name.split(".")[:3]) not in known
    ]
    assert others == []


def test_no_module_of_the_baselines_is_named_like_one_of_python():
    named = [file.stem for file in FILES if file.relative_to(ROOT).parts[0] == "baselines"]
    assert sys.stdlib_module_names.isdisjoint(named)


@pytest.mark.parametrize("layer", FORBIDDEN)
def test_lower_layers_do_without_the_upper_ones_tools(layer):
    tools = [
        f"{module_name(file)} imports {name}"
        for file in FILES
        if file.relative_to(ROOT).parts[0] == layer
        for name in imported(file)
        if name.split(".")[0] in FORBIDDEN[layer]
    ]
    assert tools == []


def test_importing_peergrid_loads_nothing_heavy(tmp_path):
    result = python(f"import peergrid, sys; print([name for name in {LATE} if name in sys.modules])", tmp_path)
    assert result.stdout.strip() == "[]", result.stderr


@pytest.mark.parametrize("file", FILES, ids=module_name)
def test_every_module_imports_on_its_own_or_says_what_to_install(file, tmp_path):
    name = module_name(file)
    result = python(f"import {name}", tmp_path)
    package, extra = OPTIONAL.get(name, ("peergrid", ""))
    if find_spec(package) is None:
        assert f"pip install 'peergrid[{extra}]'" in result.stderr
    else:
        assert result.returncode == 0, result.stderr
