"""How many threads the arithmetic may use."""

from contextlib import AbstractContextManager

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]


def one_blas_thread() -> AbstractContextManager[object]:
    """Hold BLAS to one thread, where our own threads already use every core."""
    context: AbstractContextManager[object] = threadpool_limits(limits=1, user_api="blas")
    return context
