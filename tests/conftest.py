"""Every worker keeps to one thread: small networks gain nothing from more, and workers would wait for each other."""

import os

# Where libraries look when they are loaded, which is after this.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")
