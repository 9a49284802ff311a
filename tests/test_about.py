"""`python -m peergrid`: everything that there is, from where it is registered."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import peergrid
from peergrid import __main__ as main
from peergrid.about import commands, docstring, first_sentence
from peergrid.envs.p2p_trading.env import P2PTrading
from peergrid.envs.p2p_trading.scenario import build_microgrids, load_scenario, scenario_names
from peergrid.grid import feeder_names, load_feeder
from peergrid.grid.parts import resolve

CATALOGUE = main.catalogue()


def names(kind):
    return [row["name"] for row in CATALOGUE[kind]]


def test_every_row_says_what_it_is():
    for rows in CATALOGUE.values():
        assert rows and all(len(row["about"]) > 15 and "\n" not in row["about"] for row in rows)


def test_names_are_those_that_are_registered():
    assert names("scenarios of p2p_trading") == list(scenario_names())
    assert names("feeders") == list(feeder_names())
    assert set(names("environments")) == {
        "peergrid/p2p_trading-v0",
        "peergrid/transactive-v0",
        "peergrid/CentralTrading-v0",
        "peergrid/SoloTrading-v0",
        "peergrid/DsoPricing-v0",
    }


@pytest.mark.parametrize("row", CATALOGUE["environments"], ids=lambda row: row["name"])
def test_environments_are_made_as_told(row):
    module, made = row["make"].partition("(")[0].rpartition(".")[0], {}
    exec(f"import {module}, peergrid\nenv = {row['make']}", made)
    made["env"].reset(seed=0)
    made["env"].close()


def test_a_new_policy_is_listed_with_its_sentence(monkeypatch):
    monkeypatch.setitem(main.POLICIES, "mine", "peergrid.envs.p2p_trading.env:P2PTrading")
    (row,) = (row for row in main.catalogue()["policies of p2p_trading"] if row["name"] == "mine")
    assert row["about"] == first_sentence(P2PTrading.__doc__)


def test_sizes_of_scenarios_are_counted():
    for row in CATALOGUE["scenarios of p2p_trading"]:
        scenario = load_scenario(row["name"])
        assert row["microgrids"] == len(build_microgrids(scenario).rating_kw)
        assert row["buses"] == load_feeder(scenario.network.feeder).n_bus


@pytest.mark.parametrize(
    "kind", ["POLICIES", "TRANSACTIVE_POLICIES", "PREDICTORS", "MECHANISMS", "RULES", "DSOS", "SOLVERS"]
)
def test_docstrings_are_read_as_python_reads_them(kind):
    registered = getattr(main, kind)
    for name, target in registered.items():
        assert first_sentence(docstring(target)) == first_sentence(resolve(name, kind, registered).__doc__)


def test_a_docstring_is_found_through_imports_and_other_names():
    assert docstring("peergrid.envs.p2p_trading_v0:parallel_env").startswith(P2PTrading.__doc__.splitlines()[0])
    assert docstring("peergrid.grid:OpfDso") == docstring("peergrid.grid.dso:OpfDso") != ""
    assert docstring("peergrid.grid.dso:NoSuchThing") == ""


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("One. Two.", "One"),
        ("What? It is", "What?"),
        ("One\n  and on 1.5 lines.\n\nMore.", "One and on 1.5 lines"),
        ("No end", "No end"),
    ],
)
def test_the_first_sentence_stands_on_one_line(text, sentence):
    assert first_sentence(text) == sentence


def test_commands_are_found():
    assert {"peergrid.baselines.train", "peergrid.baselines.collect", "peergrid.surrogate.train"} <= set(commands())
    assert "peergrid.baselines.studies.jobs" not in commands()


def test_json_holds_the_same_without_loading_what_is_slow(tmp_path):
    code = (
        "import runpy, sys; sys.argv = ['peergrid', '--json']; runpy.run_module('peergrid', run_name='__main__')\n"
        "assert not {'torch', 'cvxpy', 'pandas', 'matplotlib', 'hydra'} & set(sys.modules), sorted(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"version": peergrid.__version__} | CATALOGUE


def test_the_tables_hold_every_name(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["peergrid"])
    main.main()
    shown = capsys.readouterr().out
    assert peergrid.__version__ in shown and "\x1b" not in shown
    assert [name for rows in CATALOGUE.values() for name in (row["name"] for row in rows) if name not in shown] == []
