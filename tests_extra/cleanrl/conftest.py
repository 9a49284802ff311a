"""The example that is tested; and warnings are errors as everywhere, but for Gymnasium's of its own wrappers."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))
# RescaleObservation, RescaleAction and DtypeObservation make spaces of other precision, whatever they wrap.
OWN = ("ignore:.*precision lowered by casting:UserWarning", "ignore:overflow encountered in cast:RuntimeWarning")


def pytest_configure(config):
    for line in OWN:
        config.addinivalue_line("filterwarnings", line)
