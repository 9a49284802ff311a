"""Properties in two sizes: few cases in the ordinary suite, and thousands with `pytest -m slow tests/properties`.

The size is Hypothesis' profile: each test takes its share of `settings().max_examples`. What was tried is counted, and
reported at the end.
"""

from __future__ import annotations

from functools import wraps
from pathlib import Path

import jaxtyping
import pytest
from hypothesis import HealthCheck, Phase, settings

HERE = Path(__file__).parent
CASES = "cases of properties"
ANYTHING_GOES = {"deadline": None, "suppress_health_check": list(HealthCheck)}

# The quick one leaves shrinking to the other: a failure is to be said, not waited for.
GENERATE = (Phase.explicit, Phase.generate)
settings.register_profile("quick", max_examples=6, derandomize=True, phases=GENERATE, **ANYTHING_GOES)
settings.register_profile("thorough", max_examples=400, print_blob=True, **ANYTHING_GOES)


def is_thorough(config):
    return config.getoption("markexpr") == "slow"


def pytest_configure(config):
    settings.load_profile("thorough" if is_thorough(config) else "quick")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    for item in items:
        if HERE not in item.path.parents:
            continue
        if is_thorough(config):
            item.add_marker(pytest.mark.slow)
        if hasattr(item.obj, "hypothesis"):
            item.obj.hypothesis.inner_test = counted(item.obj.hypothesis.inner_test)


def counted(test):
    """The test, which counts its cases; wrapped once, also where several items share it."""
    if hasattr(test, "tried"):
        return test

    @wraps(test)
    def case(*args, **kwargs):
        case.tried += 1
        return test(*args, **kwargs)

    case.tried = 0
    return case


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    test = getattr(getattr(item.obj, "hypothesis", None), "inner_test", None)
    before = getattr(test, "tried", 0)
    try:
        return (yield)
    finally:
        if hasattr(test, "tried"):
            item.user_properties.append((CASES, test.tried - before))


def pytest_terminal_summary(terminalreporter):
    reports = [r for group in ("passed", "failed") for r in terminalreporter.getreports(group) if r.when == "call"]
    tried = sum(value for report in reports for name, value in report.user_properties if name == CASES)
    terminalreporter.write_line(f"{tried} {CASES} were tried")


@pytest.fixture(scope="module", autouse=True)
def as_for_users():
    """Without the checks of shapes and types, which protect our tests and no user."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)
