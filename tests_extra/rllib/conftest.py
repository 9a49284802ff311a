"""A small Ray, always shut down: one for this machine, and one of two nodes."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
# For all processes that Ray starts: nothing is sent, its token is not kept in the user's
# home, and runners find the example.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(EXAMPLES), os.environ.get("PYTHONPATH"))))

STORE = {"object_store_memory": 200_000_000}


@pytest.fixture
def one_node():
    """Ray on this machine, with two logical processors."""
    ray.init(num_cpus=2, include_dashboard=False, **STORE)
    yield
    ray.shutdown()


@pytest.fixture
def two_nodes():
    """The address of a cluster whose head has one logical processor and whose second node has another."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, **STORE})
    try:
        cluster.add_node(num_cpus=1, **STORE)
        cluster.wait_for_nodes()
        yield cluster.address
    finally:
        ray.shutdown()
        cluster.shutdown()
