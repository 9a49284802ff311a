"""Files and configuration that come from others run no code."""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from peergrid.baselines.entry import settings_from
from peergrid.baselines.evaluate import EvaluateSettings
from peergrid.baselines.train import TrainSettings
from peergrid.envs import p2p_trading_v0
from peergrid.envs.p2p_trading.scenario import MarketSpec, load_scenario, scenario_from_dict
from peergrid.envs.transactive.scenario import scenario_from_dict as transactive_from_dict
from peergrid.grid.errors import InvalidScenario, PeergridError
from peergrid.grid.parts import ALLOW_IMPORTS, NAMES_A_PART, part_name

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("grid", "envs", "surrogate", "baselines", "src", "benchmarks", "examples")
# What runs code that a file holds, or may.
FORBIDDEN = {
    *(
        f"{module}.{name}"
        for module in ("pickle", "cloudpickle", "dill", "marshal", "joblib")
        for name in ("load", "loads")
    ),
    *(f"yaml.{name}" for name in ("load", "load_all", "unsafe_load", "full_load")),
    *("eval", "exec", "shelve.open", "pd.read_pickle", "hydra.utils.instantiate", "instantiate"),
}
# What does so unless it is told not to.
REQUIRED = {"np.load": ("allow_pickle", False), "torch.load": ("weights_only", True)}


def unsafe(source: str) -> list[str]:
    """The calls in a source that may run what a file holds."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module in ("pickle", "cloudpickle", "dill", "marshal"):
            found.append(f"from {node.module} import ...")
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        key, wanted = REQUIRED.get(name, ("", None))
        given = {word.arg: ast.unparse(word.value) for word in node.keywords}
        if name in FORBIDDEN or (key and given.get(key) != str(wanted)):
            found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize(
    "call",
    [
        "pickle.load(f)",
        "cloudpickle.loads(b)",
        "yaml.load(text)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "eval(text)",
        "from pickle import loads",
    ],
)
def test_an_unsafe_call_would_be_found(call):
    assert unsafe(call)


def test_no_loader_runs_what_a_file_holds():
    files = [file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py")]
    assert len(files) > 50
    found = {str(file.relative_to(ROOT)): unsafe(file.read_text(encoding="utf-8")) for file in files}
    assert {file: calls for file, calls in found.items() if calls} == {}


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """A module whose import is noticed."""
    (tmp_path / "trap.py").write_text("def sprung(*_): raise RuntimeError('code from outside was run')\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "trap:sprung"
    sys.modules.pop("trap", None)


def scenario_file(tmp_path, **changes):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"defaults": ["ieee33", "_self_"], "name": "mine"} | changes))
    return str(path)


@pytest.mark.parametrize("part", ["market.mechanism", "dso.solver"])
def test_a_scenario_file_imports_nothing_from_outside(part, trap, tmp_path):
    group, _, key = part.partition(".")
    with pytest.raises(InvalidScenario, match=rf"{part} = 'trap:sprung' would import .* set {ALLOW_IMPORTS}=1"):
        load_scenario(scenario_file(tmp_path, **{group: {key: trap}}))
    assert "trap" not in sys.modules


def test_a_transactive_scenario_imports_nothing_from_outside(trap):
    values = {"name": "mine", "network": {"feeder": "ieee37"}, "agents": [{"bus": 713}], "loop": {"rule": trap}}
    with pytest.raises(InvalidScenario, match=r"loop\.rule = 'trap:sprung' would import"):
        transactive_from_dict(values)


@pytest.mark.parametrize(
    ("entry", "schema", "key"),
    [
        ("evaluate", EvaluateSettings, "policy"),
        ("evaluate", EvaluateSettings, "predictor"),
        ("train", TrainSettings, "predictor"),
    ],
)
def test_a_command_line_imports_nothing_from_outside(entry, schema, key, trap, tmp_path):
    (tmp_path / "predictor").mkdir()
    (tmp_path / "predictor" / "mine.yaml").write_text(f"# @package _global_\npredictor: {trap}\n")
    override = f"policy={trap}" if key == "policy" else "predictor=mine"
    search = f"hydra.searchpath=[file://{tmp_path.as_posix()}]"
    with initialize_config_module("peergrid.conf", version_base="1.3"):
        cfg = compose(entry, [override, search])
    with pytest.raises(PeergridError, match=f"{key} = 'trap:sprung' would import"):
        settings_from(cfg, schema)
    assert "trap" not in sys.modules


@dataclass
class Inner:
    library: str = part_name("ours")
    policies: list[str] = field(default_factory=list, metadata=NAMES_A_PART)


@dataclass
class Outer:
    inner: Inner = field(default_factory=Inner)
    name: str = "no part: may hold a colon"


def test_names_deep_in_settings_are_looked_at():
    settings_from(OmegaConf.create({"name": "os:system", "inner": {"library": "peergrid.grid.dso:OpfDso"}}), Outer)
    with pytest.raises(PeergridError, match=r"inner\.library = 'os:system' would import"):
        settings_from(OmegaConf.create({"inner": {"library": "os:system"}}), Outer)
    with pytest.raises(PeergridError, match=r"inner\.policies = 'os:system' would import"):
        settings_from(OmegaConf.create({"inner": {"policies": ["truthful", "os:system"]}}), Outer)


def test_what_is_allowed_is_imported(trap, tmp_path, monkeypatch):
    monkeypatch.setenv(ALLOW_IMPORTS, "1")
    scenario = load_scenario(scenario_file(tmp_path, market={"mechanism": trap}))
    env = p2p_trading_v0.parallel_env(scenario)
    env.reset(seed=0)
    with pytest.raises(RuntimeError, match="code from outside was run"):
        env.step({agent: env.action_space(agent).sample() for agent in env.agents})


@pytest.mark.parametrize("value", ["0", "", "true"])
def test_nothing_but_1_allows(value, trap, tmp_path, monkeypatch):
    monkeypatch.setenv(ALLOW_IMPORTS, value)
    with pytest.raises(InvalidScenario):
        load_scenario(scenario_file(tmp_path, market={"mechanism": trap}))


def test_python_code_may_name_what_it_likes(trap):
    assert MarketSpec(mechanism=trap).mechanism == trap
    p2p_trading_v0.parallel_env(mechanism=trap)
    assert "trap" in sys.modules


def test_our_own_parts_may_be_named_in_full(tmp_path):
    ours = "peergrid.envs.p2p_trading.mechanisms:bilateral"
    assert load_scenario(scenario_file(tmp_path, market={"mechanism": ours})).market.mechanism == ours
    with pytest.raises(InvalidScenario):
        load_scenario(scenario_file(tmp_path, market={"mechanism": "peergrid_evil:part"}))


@pytest.mark.parametrize("where", [(), ("market",), ("network",)])
def test_hydra_s_targets_are_no_keys_of_a_scenario(where):
    values = {"name": "mine", "network": {"feeder": "ieee33"}, "market": {}, "microgrids": []}
    inner = values
    for key in where:
        inner = inner[key]
    inner["_target_"] = "os.system"
    with pytest.raises(InvalidScenario, match=r"unknown key .*_target_"):
        scenario_from_dict(values)
