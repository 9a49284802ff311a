"""Learning policies for microgrids."""
