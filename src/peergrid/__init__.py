"""peergrid: reinforcement learning in grid-aware local energy markets."""
