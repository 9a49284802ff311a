"""Score a policy on held-out days: a fixed one, the yardstick of learned ones, or a learned one, anywhere.

    python -m peergrid.baselines.evaluate policy=truthful scenario=ieee33 predictor=oracle
    python -m peergrid.baselines.evaluate policy=outputs/train/<job>/policy.safetensors scenario=ieee33_communities
    python -m peergrid.baselines.evaluate -m policy=no_trade,truthful scenario=ieee33,ieee69 launcher=joblib

What is done is skipped; `python -m peergrid.baselines.collect` makes a table of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from peergrid.baselines.entry import console_for_tables, settings_from
from peergrid.baselines.policies.learned import LearnedPolicy, policy_of
from peergrid.baselines.scoring.references import references, score_policy
from peergrid.baselines.scoring.score import table
from peergrid.baselines.studies.jobs import run_job
from peergrid.command import command
from peergrid.envs.p2p_trading.scenario import scenario_from_dict
from peergrid.grid.parts import part_name


@dataclass
class EvaluateSettings:
    """What `conf/evaluate.yaml` sets."""

    scenario: dict[str, Any] = field(default_factory=dict)
    predictor: str = part_name("auto")
    predicted_intervals: int | None = None
    policy: str = part_name("truthful")
    days: int = 20
    first_held_out: int = 0
    seed: int = 0
    threads: int = 1
    output: str = "outputs/policies"
    cache: str = "outputs/references"
    redo: bool = False


@command("evaluate")
def main(cfg: DictConfig) -> float:
    """Play the policy, print its score, write the result to the job's folder; returns the score."""
    settings = settings_from(cfg, EvaluateSettings)
    scenario, console = scenario_from_dict(settings.scenario), console_for_tables()

    def work(folder: Path) -> Mapping[str, Any]:
        policy = policy_of(settings.policy, settings.seed)
        known = references(scenario, settings.days, Path(settings.cache), first=settings.first_held_out)
        scored = score_policy(
            scenario, settings.predictor, policy, known, settings.policy, settings.predicted_intervals
        )
        console.print(table(f"Score over {settings.days} held-out days; money in currency per day", [scored]))
        learned = {"learned": policy.about | {"player": policy.player}} if isinstance(policy, LearnedPolicy) else {}
        return asdict(scored) | known.as_lists() | learned

    name = "-".join((scenario.name, settings.policy, settings.predictor, f"seed{settings.seed}"))
    result = run_job(name, asdict(settings), work, console.print)
    return float(result["score"])  # what a search maximises


if __name__ == "__main__":
    # By its name, so that the processes of a sweep find what they are sent.
    from peergrid.baselines.evaluate import main as named

    named()
