"""Many days for one question: jobs of a sweep, tables and figures. `studies/X.py` is what the command `X` does."""
