"""Policies, scores and studies that step the environments."""
