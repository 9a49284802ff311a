"""The data set described: made where it is missing, drawn, and its coefficients as a table for a page."""

import subprocess
import sys

from peergrid.envs.p2p_trading.scenario import build_dso, load_scenario
from peergrid.surrogate.dataset import load_subset
from peergrid.surrogate.report.correlations import pearson_by_bus, pearson_markdown


def test_the_command_needs_no_model_and_prints_the_table_of_the_page(tmp_path):
    command = [sys.executable, "-m", "peergrid.surrogate.describe", "scenario=ieee33", "output=out", "workers=1"]
    command += ["data.train_days=3", "data.other_days=1", "data.shard_days=2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    dso, train = build_dso(load_scenario("ieee33")), load_subset(tmp_path / "out" / "data", "train")
    assert pearson_markdown(pearson_by_bus(train, dso.feeder.bus, dso.trade_bus)) in done.stdout
    assert {p.name for p in (tmp_path / "out" / "report").iterdir()} == {"inputs.png", "correlations.png"}
    assert not list((tmp_path / "out").glob("*.safetensors"))
