"""Compiled functions: kept on disk, compiled anew after an edit, the same answers from threads and forked processes."""

from __future__ import annotations

import ast
import importlib
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from peergrid.grid import load_feeder
from peergrid.grid.dso import DsoQuery, OpfDso
from peergrid.grid.opf import OpfStatus, UpperVoltage, kernel
from peergrid.grid.opf.interior_point import InteriorPointOpf

ROOT = Path(__file__).resolve().parents[2]
FILES = [
    file for folder in ("grid", "envs", "surrogate", "baselines") for file in sorted((ROOT / folder).rglob("*.py"))
]

MODULE = """
from peergrid.grid.compiled import compiled, inlined


@compiled
def entry(x):
    return helper(x) + 1.0


@inlined
def helper(x):
    return 10.0 * x
"""
LOGGED = "import logging; logging.basicConfig(format='%(levelname)s %(message)s', level='INFO')\n"
CALL = "import small; print(small.entry(2.0), 'found on disk:', *small.entry.stats.cache_hits.values())\n"
COMPILING = "INFO compiling entry for this processor\n"


def python(code: str, folder: Path, **changes: object) -> subprocess.CompletedProcess[str]:
    """Run code in a new process in `folder`, which is where it looks for modules first."""
    command = [sys.executable, "-c", code]
    places = environment(**changes)
    done = subprocess.run(command, cwd=folder, env=places, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done


def environment(**changes: object) -> dict[str, str]:
    return dict(os.environ) | {name: str(value) for name, value in changes.items()}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The file of a module with one compiled function and one that is inlined into it."""
    file = tmp_path / "small.py"
    file.write_text(MODULE)
    return file


@pytest.fixture
def nowhere_to_write(tmp_path: Path) -> dict[str, object]:
    """Changes to the environment that leave numba no folder of the user's: a file in its place stops root as well."""
    home = tmp_path / "home"
    home.touch()
    return {"HOME": home, "XDG_CACHE_HOME": home / "cache", "NUMBA_CACHE_DIR": ""}


def test_an_edited_helper_is_compiled_into_its_callers_anew(small, tmp_path):
    first = python(LOGGED + CALL, tmp_path, NUMBA_CACHE_DIR=tmp_path / "cache")
    assert (first.stdout, first.stderr) == ("21.0 found on disk:\n", COMPILING)
    again = python(LOGGED + CALL, tmp_path, NUMBA_CACHE_DIR=tmp_path / "cache")
    assert (again.stdout, again.stderr) == ("21.0 found on disk: 1\n", "")

    small.write_text(MODULE.replace("10.0 * x", "30.0 * x"))
    later = small.stat().st_mtime + 10.0  # clocks of some file systems are coarse
    os.utime(small, (later, later))
    edited = python(LOGGED + CALL, tmp_path, NUMBA_CACHE_DIR=tmp_path / "cache")
    assert (edited.stdout, edited.stderr) == ("61.0 found on disk:\n", COMPILING)
    again = python(LOGGED + CALL, tmp_path, NUMBA_CACHE_DIR=tmp_path / "cache")
    assert (again.stdout, again.stderr) == ("61.0 found on disk: 1\n", "")


def test_an_edit_anywhere_in_a_folder_that_is_read_whole_is_noticed(tmp_path):
    package = tmp_path / "large" / "parts"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package.parent / "entry.py").write_text(
        "from pathlib import Path\n"
        "from peergrid.grid.compiled import compiled\n"
        "from large.parts.helper import helper\n\n\n"
        "@compiled(folder=Path(__file__).parent)\n"
        "def entry(x):\n    return helper(x) + 1.0\n"
    )
    helper = "from peergrid.grid.compiled import inlined\n\n\n@inlined\ndef helper(x):\n    return {factor} * x\n"
    call = CALL.replace("import small", "from large import entry as small")
    found = []
    for factor in (10.0, 30.0, 10.0):
        (package / "helper.py").write_text(helper.format(factor=factor))
        for _ in range(2):
            done = python(LOGGED + call, tmp_path, NUMBA_CACHE_DIR=tmp_path / "cache", PYTHONDONTWRITEBYTECODE="1")
            found.append((done.stdout, done.stderr))
    kept = ("21.0 found on disk: 1\n", "")
    assert found[:2] == [("21.0 found on disk:\n", COMPILING), kept]
    assert found[2:4] == [("61.0 found on disk:\n", COMPILING), ("61.0 found on disk: 1\n", "")]
    assert found[4:] == [kept, kept]  # what was compiled before the edits is still there


@pytest.mark.parametrize("part", ["nbi", "nbc"])
def test_a_damaged_cache_is_replaced(small, tmp_path, part):
    cache = tmp_path / "cache"
    python(CALL, tmp_path, NUMBA_CACHE_DIR=cache)
    for file in cache.rglob(f"*.{part}"):
        file.write_bytes(b"")
    damaged = python(LOGGED + CALL, tmp_path, NUMBA_CACHE_DIR=cache)
    assert damaged.stdout == "21.0 found on disk:\n"
    assert damaged.stderr.startswith("WARNING entry: what was compiled before cannot be read")
    again = python(LOGGED + CALL, tmp_path, NUMBA_CACHE_DIR=cache)
    assert (again.stdout, again.stderr) == ("21.0 found on disk: 1\n", "")


def test_a_cache_of_a_class_that_is_gone_is_replaced(tmp_path):
    # As after an upgrade in place: the index on disk names the class of the argument that it was compiled for.
    file = tmp_path / "small.py"
    code = "from typing import Any, NamedTuple\n" + MODULE.replace("helper(x) + 1.0", "helper(x.value) + 1.0")
    for name, logged in (("Old", COMPILING), ("New", "WARNING entry: what was compiled before cannot be read")):
        file.write_text(code + f"\n\nclass {name}(NamedTuple):\n    value: Any\n")
        done = python(
            f"{LOGGED}import small; print(small.entry(small.{name}(2.0)))", tmp_path, NUMBA_CACHE_DIR=tmp_path
        )
        assert done.stdout == "21.0\n"
        assert done.stderr.startswith(logged)


def test_a_cache_that_can_no_longer_be_written_costs_time_but_no_answer(small, tmp_path):
    cache = tmp_path / "cache"
    lose = f"import small, shutil; shutil.rmtree({str(cache)!r}); open({str(cache)!r}, 'w').close()\n"
    done = python(LOGGED + lose + CALL, tmp_path, NUMBA_CACHE_DIR=cache)
    assert done.stdout == "21.0 found on disk:\n"
    assert "WARNING entry will be compiled again in the next process" in done.stderr


def decorators(function: ast.FunctionDef) -> set[str]:
    called = (node.func if isinstance(node, ast.Call) else node for node in function.decorator_list)
    return {node.id for node in called if isinstance(node, ast.Name)}


def functions(file: Path, *kinds: str) -> Iterator[ast.FunctionDef]:
    """Functions of a file that one of the decorators stands above."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and decorators(node) & set(kinds):
            yield node


def from_elsewhere(file: Path) -> dict[str, str]:
    """Names at the top of a file that come from another of our modules, or are made of such; and where from."""
    found: dict[str, str] = {}
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("peergrid"):
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Assign) and (sources := names_in(node.value) & found.keys()):
            made_of = " and ".join(sorted(found[name] for name in sources))
            found |= {name: made_of for target in node.targets for name in names_in(target)}
    return found


def names_in(*nodes: ast.AST) -> set[str]:
    return {part.id for node in nodes for part in ast.walk(node) if isinstance(part, ast.Name)}


def borrowed(file: Path) -> dict[str, set[str]]:
    """What each compiled function of a file reads from another of our modules that is not read for edits."""
    elsewhere = {name: place for name, place in from_elsewhere(file).items() if not is_read_for_edits(file, place)}
    return {
        function.name: {elsewhere[name] for name in names_in(*function.body) & elsewhere.keys()}
        for function in functions(file, "compiled", "inlined", "in_place", "overload", "intrinsic")
    }


def module_name(file: Path) -> str:
    return ".".join(("peergrid", *file.relative_to(ROOT).with_suffix("").parts))


COMPILED = [file for file in FILES if any(functions(file, "compiled"))]


def folders_of(file: Path) -> set[Path]:
    """Folders that are read whole for edits of what a file compiles."""
    named = {
        ast.unparse(keyword.value)
        for function in functions(file, "compiled")
        for decorator in function.decorator_list
        if isinstance(decorator, ast.Call)
        for keyword in decorator.keywords
        if keyword.arg == "folder"
    }
    if not named:
        return set()
    module = importlib.import_module(module_name(file))
    return {eval(expression, vars(module)).resolve() for expression in named}


FOLDERS = {file: folders_of(file) for file in COMPILED}
# Folders with entries of their own, and their files: what is called there from an entry may stand in any of them.
WHOLE = {file.parent for file, folders in FOLDERS.items() if file.parent in folders}
READ = sorted({*COMPILED, *(file for file in FILES if WHOLE & set(file.parents))})


def is_read_for_edits(file: Path, name: str) -> bool:
    """Whether an edit of what a full name stands for is noticed where compiled functions of a file use it."""
    read = FOLDERS.get(file, set()) | (WHOLE & set(file.parents))
    return any(f"{name}.".startswith(f"{module_name(folder)}.") for folder in read)


def test_the_kernel_is_read_whole():
    assert ROOT / "grid" / "opf" / "kernel" in WHOLE


@pytest.mark.parametrize("file", READ, ids=module_name)
def test_what_a_compiled_function_calls_is_read_for_edits(file):
    # Its file is all that numba looks at by itself.
    jitted = {
        f"{module_name(at)}.{function.name}"
        for at in FILES
        for function in functions(at, "compiled", "inlined", "in_place")
    }
    modules = {module_name(at) for at in FILES}
    for function, names in borrowed(file).items():
        assert names & (jitted | modules) == set(), function


@pytest.mark.parametrize("file", READ, ids=module_name)
def test_constants_of_a_compiled_function_are_read_for_edits(file):
    # They are compiled into it, as functions are.
    assert {function: names for function, names in borrowed(file).items() if names} == {}


@pytest.mark.skipif(os.name != "posix", reason="the user's folder is not found by HOME")
def test_where_nothing_can_be_written_functions_are_compiled_in_every_process(small, tmp_path, nowhere_to_write):
    (tmp_path / "__pycache__").touch()
    for _ in range(2):
        done = python(LOGGED + CALL, tmp_path, **nowhere_to_write)
        warning, announcement = done.stderr.splitlines(keepends=True)
        assert done.stdout == "21.0 found on disk:\n"
        assert warning.startswith("WARNING entry will be compiled anew in every process: ")
        assert announcement == COMPILING


@pytest.mark.skipif(os.name != "posix", reason="the user's folder is not found by HOME")
def test_a_read_only_installation_without_a_home_works(tmp_path, nowhere_to_write):
    package = tmp_path / "peergrid"
    for folder in ("grid", "envs", "baselines", "conf"):
        shutil.copytree(ROOT / folder, package / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "src" / "peergrid" / "__init__.py", package)
    for folder in (package, *package.rglob("*/")):
        (folder / "__pycache__").touch()

    modules = [module_name(file) for file in COMPILED]
    done = python(
        f"import peergrid, {', '.join(modules)}, numpy as np\n"
        "from peergrid.envs.p2p_trading.mechanisms import Offers, direct\n"
        "offers = Offers(quantity_kw=np.array([3.0, -2.0, -4.0]), limit_price_per_kwh=np.zeros(3),\n"
        "                lmp_per_kwh=np.array(0.1))\n"
        "print(peergrid.__file__, direct(offers).quantity_kw)",
        tmp_path,
        **nowhere_to_write,
    )
    assert done.stdout == f"{package / '__init__.py'} [ 3.  -1.5 -1.5]\n"
    warned = sorted(line.split(" will be compiled anew")[0] for line in done.stderr.splitlines())
    assert warned == sorted(function.name for file in COMPILED for function in functions(file, "compiled"))


def test_the_first_compilation_is_announced_in_the_log_and_nothing_is_printed(small, tmp_path):
    names = "import logging; logging.basicConfig(format='%(levelname)s %(name)s', level='INFO'); import small\n"
    done = python(names + "small.entry(2.0), small.entry(3.0)", tmp_path, NUMBA_CACHE_DIR=tmp_path / "named")
    assert (done.stdout, done.stderr) == ("", "INFO peergrid.grid.compiled\n")
    done = python("import small; small.entry(2.0)", tmp_path, NUMBA_CACHE_DIR=tmp_path / "silent")
    assert (done.stdout, done.stderr) == ("", "")


def test_two_processes_may_fill_an_empty_cache_at_once(small, tmp_path):
    wait = "import small; print(flush=True); input()\n"  # until both are there
    command, places = [sys.executable, "-c", wait + LOGGED + CALL], environment(NUMBA_CACHE_DIR=tmp_path / "cache")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command, cwd=tmp_path, env=places, **pipes) for _ in range(2)]
    for process in both:
        process.stdout.readline()
    for process in both:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in both:
        answer, log = process.communicate(timeout=60)
        assert (process.returncode, answer.split()[0]) == (0, "21.0"), log
    third = python(LOGGED + CALL, tmp_path, NUMBA_CACHE_DIR=tmp_path / "cache")
    assert (third.stdout, third.stderr) == ("21.0 found on disk: 1\n", "")


def random_batch(upper_voltage=UpperVoltage.LOSSLESS, n_row=23):
    """The 33-bus feeder with four microgrids: some of these problems press against the upper voltage."""
    feeder = load_feeder("ieee33")
    limits = {"v_min_pu": 0.95, "v_max_pu": 1.05, "i_max_a": 400.0}
    feeder = replace(feeder, **{name: np.full(feeder.n_bus, limit) for name, limit in limits.items()})
    dso = OpfDso(feeder, [feeder.index(bus) for bus in (17, 22, 25, 32)], upper_voltage=upper_voltage)
    rng = np.random.default_rng(7)
    share = rng.uniform(0.1, 0.9, (n_row, 1))
    return dso.problem(
        DsoQuery(
            load_kw=share * feeder.load_kw,
            load_kvar=share * feeder.load_kvar,
            proposed_kw=rng.uniform(-1000.0, 3000.0, (n_row, 4)),
            lmp_per_kwh=0.1,
        )
    )


def test_the_kernel_knows_the_statuses_by_the_same_numbers():
    kernels = kernel.OPTIMAL, kernel.INFEASIBLE_PROBLEM, kernel.INACCURATE
    assert kernels == (OpfStatus.OPTIMAL, OpfStatus.INFEASIBLE, OpfStatus.INACCURATE)


def solver_of(problem, threads=1):
    bus = problem.injections.bus
    return InteriorPointOpf(problem.feeder, bus, np.arange(len(bus)) == 0, problem.upper_voltage, threads=threads)


def assert_same(one, other):
    for f in fields(one):
        np.testing.assert_array_equal(getattr(one, f.name), getattr(other, f.name), err_msg=f.name)


def test_some_problems_of_the_batch_are_solved_a_second_time_with_lossless_limits():
    lossless, plain = (solver_of(problem)(problem) for problem in map(random_batch, UpperVoltage))
    again = lossless.cost_per_hour != plain.cost_per_hour
    assert (lossless.status == OpfStatus.OPTIMAL).all()
    assert 5 <= again.sum() <= 18


@pytest.mark.parametrize("upper_voltage", UpperVoltage)
@pytest.mark.parametrize("threads", [2, 3, 5, 23])
def test_answers_do_not_depend_on_the_number_of_threads(upper_voltage, threads):
    problem = random_batch(upper_voltage)
    assert_same(solver_of(problem, threads)(problem), solver_of(problem)(problem))


def test_threads_may_share_a_solver():
    problem = random_batch()
    solver = solver_of(problem)
    alone = solver(problem)
    with ThreadPoolExecutor(4) as pool:
        for together in pool.map(solver, [problem] * 12):
            assert_same(together, alone)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_process_forked_after_a_threaded_solve_solves_alike(tmp_path):
    problem = random_batch()
    solver = solver_of(problem, threads=2)
    (tmp_path / "asked").write_bytes(pickle.dumps((solver, problem)))
    code = (
        "import os, pickle, signal\n"
        "with open('asked', 'rb') as file:\n"
        "    solver, problem = pickle.load(file)\n"
        "before = pickle.dumps(solver(problem))\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    signal.alarm(60)  # ends it if it hangs\n"
        "    os._exit(pickle.dumps(solver(problem)) != before)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "with open('answer', 'wb') as file:\n"
        "    file.write(before)\n"
    )
    python(code, tmp_path)
    assert_same(pickle.loads((tmp_path / "answer").read_bytes()), solver(problem))
