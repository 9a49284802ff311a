"""What an answer must keep, one module each: start, curvature, force, step, move and certificate of a constraint.

`registry.py` says in which order the solver comes to them, and what each of its functions is called for.
"""
