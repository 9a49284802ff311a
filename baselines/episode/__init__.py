"""Days played by a policy: what is kept of them, and how they are shown."""
