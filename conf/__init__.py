"""Hydra configuration: `scenario/<name>.yaml` holds the numbers of each scenario."""
