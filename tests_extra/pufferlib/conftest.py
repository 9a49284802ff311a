"""Warnings here are errors as everywhere, but for those of PufferLib and of what it brings along about themselves."""

from __future__ import annotations

OWN = ("ignore::DeprecationWarning:pufferlib.*", "ignore::UserWarning:pufferlib.*")


def pytest_configure(config):
    for line in OWN:
        config.addinivalue_line("filterwarnings", line)
