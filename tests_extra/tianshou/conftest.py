"""Warnings here are errors as everywhere, but for those of Tianshou about itself."""

from __future__ import annotations

OWN = ("ignore::DeprecationWarning:tianshou.*", "ignore::DeprecationWarning:sensai.*")


def pytest_configure(config):
    for line in OWN:
        config.addinivalue_line("filterwarnings", line)
