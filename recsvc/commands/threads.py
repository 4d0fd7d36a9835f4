"""How many threads arithmetic may use; to be said before numpy is imported."""

import os

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def one_thread_each() -> None:
    """Give each process one thread for arithmetic, unless the environment says otherwise.

    A worker answers on one thread; more of them would only fight for the cores. polars is left
    alone: it does nothing on the request path.
    """
    for name in THREAD_VARIABLES:
        os.environ.setdefault(name, "1")
