"""What stands at a bus: one module for each device, with its numbers, its limits, its costs, and what it exports."""
