"""What runs on others' machines: the workflows parse, and name only what there is."""

from __future__ import annotations

import re
import shlex
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

import peergrid
from peergrid.about import commands

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted(f for f in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if f.stem != "config")
with (ROOT / "pyproject.toml").open("rb") as file:
    PROJECT = tomllib.load(file)["project"]


def load(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def runs():
    """Every command of every job, once for each combination of its matrix."""
    for path in WORKFLOWS:
        for job, about in load(path)["jobs"].items():
            matrix = {k: v for k, v in about.get("strategy", {}).get("matrix", {}).items() if isinstance(v, list)}
            for line in (line for step in about["steps"] for line in step.get("run", "").splitlines()):
                named = re.findall(r"\$\{\{ matrix\.(\w+) \}\}", line)
                assert set(named) <= set(matrix), f"{job}: {line}"
                choices = matrix[named[0]] if named else [""]
                yield from (re.sub(r"\$\{\{ matrix\.\w+ \}\}", str(choice), line) for choice in choices)


RUNS = sorted(set(runs()))


def faults(command):
    """What a command names that does not exist."""
    found, words = [], shlex.split(command)
    for extra in re.findall(r"\.\[([\w,]+)\]", command):
        found += [f"extra {e}" for e in extra.split(",") if e not in PROJECT["optional-dependencies"]]
    for before, word in pairwise(words):
        if before == "-m" and word.startswith("peergrid.") and word not in commands():
            found.append(f"command {word}")
        is_path = before in ("-c", "pytest", "html") or word.endswith((".py", ".sh", ".txt"))
        if is_path and not word.startswith("-") and not (ROOT / word).exists():
            found.append(f"file {word}")
    return found


def test_every_workflow_has_jobs_that_run_something():
    assert len(RUNS) > 10
    for path in WORKFLOWS:
        workflow = load(path)
        assert workflow["permissions"] == {"contents": "read"}
        for job in workflow["jobs"].values():
            assert job["runs-on"] and any("run" in step for step in job["steps"])


@pytest.mark.parametrize("command", RUNS)
def test_commands_name_what_exists(command):
    assert faults(command) == []


@pytest.mark.parametrize(
    "command",
    [
        "python -m pip install -c no_such.txt -e '.[test]'",
        "python -m pip install -e '.[tset]'",
        "python -m pytest no_such_folder",
        "python -m peergrid.baselines.trian",
        "python benchmarks/no_such.py",
    ],
)
def test_what_does_not_exist_would_be_found(command):
    assert faults(command)


def test_every_folder_of_extra_tests_has_its_job():
    folders = {folder.parent.name for folder in (ROOT / "tests_extra").glob("*/conftest.py")}
    tested = {command.removeprefix("python -m pytest tests_extra/") for command in RUNS if "tests_extra/" in command}
    assert tested == folders


def test_the_oldest_python_that_we_allow_is_tested():
    oldest = PROJECT["requires-python"].removeprefix(">=")
    jobs = load(ROOT / ".github" / "workflows" / "ci.yml")["jobs"]
    assert jobs["test"]["strategy"]["matrix"]["python"][0] == oldest
    assert jobs["test"]["strategy"]["matrix"]["os"] == ["ubuntu-latest", "windows-latest", "macos-latest"]


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_issue_forms_are_whole(path):
    form = load(path)
    assert form["name"] and form["description"]
    ids = [field["id"] for field in form["body"]]
    assert len(ids) == len(set(ids)) > 0
    for field in form["body"]:
        assert field["type"] in ("input", "textarea", "dropdown", "checkboxes") and field["attributes"]["label"]


def test_the_citation_is_of_this_version():
    citation = load(ROOT / "CITATION.cff")
    assert citation["version"] == peergrid.__version__ == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert {"cff-version", "message", "title", "authors"} <= set(citation)


def test_the_citation_names_the_papers_that_the_pages_name():
    page = " ".join((ROOT / "docs" / "provenance.md").read_text(encoding="utf-8").split())
    references = load(ROOT / "CITATION.cff")["references"]
    assert len(references) == 2
    for paper in references:
        assert {"type", "title", "authors"} <= set(paper) and paper["authors"]  # what the format requires
        assert f"*{paper['title']}*" in page
