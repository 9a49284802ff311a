"""Microgrids, market and environments."""
