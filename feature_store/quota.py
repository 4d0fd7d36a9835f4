"""How much somebody whom nobody vouches for may send in a minute, counted for all workers."""

from collections.abc import Mapping

from redis.asyncio import Redis
from redis.exceptions import RedisError

from feature_store import keys
from feature_store.errors import RateLimitedError, StoreUnavailableError

WINDOW_S = 60

_TAKE = """
local used = tonumber(redis.call('GET', KEYS[1]) or '0')
if used + tonumber(ARGV[1]) > tonumber(ARGV[2]) then return 0 end
redis.call('INCRBY', KEYS[1], ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
"""


class Quota:
    """Counts what people send by the minute.

    Parameters
    ----------
    redis : Redis
        The client of the process.
    """

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis
        self._take = redis.register_script(_TAKE)

    async def take(self, counts: Mapping[str, int], most: int, now_s: float) -> None:
        """Use up a part of this minute of each person, or of none.

        Parameters
        ----------
        counts : mapping of str to int
            How many events each person (``schema.person_of``) sends.
        most : int
            So many of one person in a minute.
        now_s : float
            What the time is, in seconds since 1970.

        Raises
        ------
        RateLimitedError
            If it is too much for one of them, and when the next minute begins.
        StoreUnavailableError
            If the server does not answer.
        """
        minute = int(now_s // WINDOW_S)
        taken: list[tuple[str, int]] = []
        try:
            for person, count in counts.items():
                name = keys.quota(person, minute)
                if not await self._take(keys=[name], args=[count, most, 2 * WINDOW_S]):
                    for other, used in taken:
                        await self._redis.decrby(other, used)
                    wait_s = (minute + 1) * WINDOW_S - now_s
                    said = f"a browser may send {most} events of one person a minute"
                    raise RateLimitedError(said, wait_s)
                taken.append((name, count))
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"the events cannot be counted: {error}") from error
