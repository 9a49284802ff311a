"""Warnings here are errors as everywhere, but for those of TorchRL and BenchMARL about themselves."""

from __future__ import annotations

OWN = (
    "ignore::DeprecationWarning:torchrl.*",
    "ignore::DeprecationWarning:abc",
    "ignore:No episode terminated:UserWarning",
)


def pytest_configure(config):
    for line in OWN:
        config.addinivalue_line("filterwarnings", line)
