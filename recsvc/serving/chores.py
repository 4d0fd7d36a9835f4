"""Work that a process does again and again beside its answers."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from feature_store.errors import RecsvcError, StoreUnavailableError
from recsvc.telemetry import Metrics, get_logger

log = get_logger()


async def every(seconds: float, work: Callable[[], Awaitable[object]], metrics: Metrics) -> None:
    """Do some work for ever, with a pause before each time.

    Parameters
    ----------
    seconds : float
        The pause.
    work : callable
        May fail: that is logged, and it is tried again.
    metrics : Metrics
        Where it is said how late the event loop was.
    """
    task = asyncio.current_task()
    assert task is not None
    # Work that fails while it is being cancelled raises its own error: that must not save it.
    while not task.cancelling():
        due_s = time.monotonic() + seconds
        await asyncio.sleep(seconds)
        metrics.loop_lag.set(max(0.0, time.monotonic() - due_s))
        try:
            await work()
        except StoreUnavailableError:
            pass  # the heartbeat says so
        except (RecsvcError, OSError, ValueError) as error:
            log.error("background_work_failed", error=str(error), work=work.__qualname__)
