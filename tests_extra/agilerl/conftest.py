"""Warnings here are errors as everywhere, but for those of AgileRL and of what it brings along about themselves."""

from __future__ import annotations

OWN = (
    "ignore::DeprecationWarning:agilerl.*",
    "ignore::FutureWarning:agilerl.*",
    "ignore::UserWarning:agilerl.*",
    "ignore:.*MakeEvolvable will be deprecated:DeprecationWarning",
)


def pytest_configure(config):
    for line in OWN:
        config.addinivalue_line("filterwarnings", line)
