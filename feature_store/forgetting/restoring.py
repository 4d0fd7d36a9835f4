"""Who is forgotten, from the server to an archive that may lack some, and back to a new server."""

from collections.abc import Iterable, Mapping
from typing import Any

from feature_store import keys
from feature_store.forgetting.ledger import KIND, NO_CUT, Ledger, ledger_of
from feature_store.forgetting.server import forgotten_entry

_CHUNK = 2_000


async def held_entries(redis: Any, ledger: Ledger) -> list[dict[str, Any]]:
    """Return all cuts of a server as the archive has them.

    Parameters
    ----------
    redis : Redis
        A client of the server.
    ledger : Ledger
        What the server knows.
    """
    found = []
    for shard in keys.shards() if ledger else ():
        for digest in await redis.hkeys(keys.forgotten(shard)):
            cut = ledger.cuts.get(digest.decode(), NO_CUT)
            found.append(forgotten_entry(digest.decode(), cut, ledger.salt, shard, "rebuild"))
    return found


async def replay_forgotten(redis: Any, entries: Iterable[Mapping[str, Any]]) -> int:
    """Teach an emptied server who is forgotten.

    Parameters
    ----------
    redis : Redis
        A client of the server.
    entries : iterable of mapping
        Changes of people as the archive has them; those of another kind are passed over.

    Returns
    -------
    int
        How many cuts there are.
    """
    shard_of: dict[str, str] = {}
    kept = []
    for entry in entries:
        if entry["kind"] == KIND:
            shard_of[entry["person"]] = entry["body"]["shard"]
            kept.append(entry)
    ledger = ledger_of(kept)
    if not ledger:
        return 0
    await redis.set(keys.FORGOTTEN_SALT, " ".join(salt.hex() for salt in ledger.salts))
    cuts = list(ledger.cuts.items())
    for start in range(0, len(cuts), _CHUNK):
        async with redis.pipeline(transaction=False) as pipeline:
            for digest, cut in cuts[start : start + _CHUNK]:
                pipeline.hset(keys.forgotten(shard_of[digest]), digest, cut.value)
            await pipeline.execute()
    return len(cuts)
