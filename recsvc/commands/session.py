"""The server that a command works with: the configured one, or our own for as long as it runs."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from feature_store.embedded import EmbeddedServer
from feature_store.errors import StoreUnavailableError
from feature_store.store import Store
from recsvc.settings import Settings

READ_TIMEOUT_S = 5.0
"""A command may wait for a busy server; the 50 ms of a page are not for it."""

T = TypeVar("T")


@contextmanager
def server_url(settings: Settings) -> Iterator[str]:
    """Hold a server that answers, and give its URL.

    Raises
    ------
    StoreUnavailableError
        If the configured one does not answer, or ours does not start.
    """
    if settings.redis_url is None:
        with EmbeddedServer(settings.data_dir) as server:
            yield server.url
        return
    asyncio.run(_answers(settings.redis_url))
    yield settings.redis_url


async def _answers(url: str) -> None:
    try:
        await (await Store.open(url)).close()
    except StoreUnavailableError as error:
        raise StoreUnavailableError(
            f"{error}; start that server, correct RECSVC_REDIS_URL, or unset it to use the "
            "embedded one"
        ) from None


def with_store(settings: Settings, use: Callable[[Store], Awaitable[T]]) -> T:
    """Run something against the store of a server."""

    async def run(url: str) -> T:
        store = await Store.open(url, READ_TIMEOUT_S, settings.profiling)
        try:
            return await use(store)
        finally:
            await store.close()

    with server_url(settings) as url:
        return asyncio.run(run(url))
