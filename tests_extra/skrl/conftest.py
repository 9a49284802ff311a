"""Warnings here are errors as everywhere, but for those of skrl about itself."""

from __future__ import annotations

OWN = ("ignore::DeprecationWarning:skrl.*", "ignore:Lazy modules are a new feature:UserWarning")


def pytest_configure(config):
    for line in OWN:
        config.addinivalue_line("filterwarnings", line)
