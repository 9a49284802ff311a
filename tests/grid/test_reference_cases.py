"""Every solver against the folders of opf_cases: answers from elsewhere, one by one and in batches, and their proof."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from itertools import groupby
from pathlib import Path

import pytest

from peergrid.grid.dso import SOLVERS
from peergrid.grid.opf import OpfStatus
from peergrid.grid.parts import resolve


def module(path):
    """A file outside the package as a module."""
    spec = spec_from_file_location(path.stem, path)
    loaded = sys.modules[path.stem] = module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


CASES = Path(__file__).parent / "opf_cases"
opf_cases = module(CASES / "cases.py")
kkt = module(Path(__file__).parents[2] / "benchmarks" / "kkt.py")

PRIMAL_PU = 1e-7
DUAL = 1e-5
GAP = 1e-7
EXACT = [name for name in SOLVERS if name != "admm"]  # a first-order method reaches no such tolerances

read = [opf_cases.read_case(folder) for folder in opf_cases.FOLDERS]
in_batches = [list(batch) for _, batch in groupby(sorted(read, key=lambda c: c.shape()), key=lambda c: c.shape())]


def solver_of(name, case):
    injections = case.problem.injections
    return resolve(name, "OPF solver", SOLVERS)(
        case.feeder, injections.bus, case.has_free_q, case.problem.upper_voltage
    )


def test_every_case_is_complete():
    files = ("README.md", "problem.json", "expected.json")
    assert [case.name for case in read if any(not (CASES / case.name / file).exists() for file in files)] == []
    assert len(read) >= 20


@pytest.mark.parametrize("solver", EXACT)
@pytest.mark.parametrize("case", read, ids=lambda case: case.name)
def test_every_solver_finds_the_expected_answer(case, solver):
    solution = solver_of(solver, case)(case.problem)
    assert case.differences(solution) == []
    if solution.status == OpfStatus.OPTIMAL:
        residuals = kkt.kkt_residuals(case.problem, kkt.point_of(case.problem, solution))
        primal, dual, gap = residuals.worst()
        assert primal < PRIMAL_PU, residuals.primal
        assert dual < DUAL, residuals.dual
        assert gap < GAP, residuals.gap


@pytest.mark.parametrize("solver", EXACT)
@pytest.mark.parametrize("batch", [b for b in in_batches if len(b) > 1], ids=lambda batch: batch[0].name)
def test_every_solver_finds_the_expected_answers_in_a_batch(batch, solver):
    solution = solver_of(solver, batch[0])(opf_cases.stack([case.problem for case in batch]))
    assert [case.differences(opf_cases.row(solution, index)) for index, case in enumerate(batch)] == [[]] * len(batch)
