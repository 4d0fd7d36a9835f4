"""Running one Lua script many times in one round trip."""

from collections.abc import Iterable
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from feature_store.errors import StoreUnavailableError


class ScriptRunner:
    """Runs scripts by their digests.

    Parameters
    ----------
    redis : Redis
        The client of the process.
    """

    def __init__(self, redis: "Redis") -> None:
        # redis-py types the commands of a pipeline, which return at once, like those of a client.
        self._redis: Any = redis
        self._shas: dict[str, str] = {}

    async def run(
        self, script: str, calls: Iterable[tuple[list[str], list[bytes | str | int]]]
    ) -> list[int]:
        """Run a script for each of `calls`: names of keys, and arguments.

        Raises
        ------
        StoreUnavailableError
            If the server forgets scripts as soon as they are loaded.
        RedisError
            The first error that a script raised.
        """
        calls = list(calls)
        for _ in range(2):
            # Kept here: a concurrent call may forget it while this one waits.
            sha = self._shas.get(script) or await self._redis.script_load(script)
            self._shas[script] = sha
            async with self._redis.pipeline(transaction=False) as pipeline:
                for names, arguments in calls:
                    pipeline.evalsha(sha, len(names), *names, *arguments)
                outcomes: list[Any] = await pipeline.execute(raise_on_error=False)
            errors = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
            if not errors:
                return outcomes
            if not all(isinstance(error, NoScriptError) for error in errors):
                raise errors[0]
            # The server was restarted or flushed: it wrote nothing and needs the script again.
            self._shas.pop(script, None)
        raise StoreUnavailableError("the server does not keep its scripts")
