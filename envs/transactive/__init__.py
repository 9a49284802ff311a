"""Environment transactive: agents answer price signals, the DSO moves them until the day-ahead schedule is met."""
