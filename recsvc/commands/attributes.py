"""What a training is told of people: the attributes of those who do not refuse to be profiled."""

from typing import Any

from feature_store.store import Store
from recsvc.commands.session import with_store
from recsvc.settings import Settings


async def attributes_of(store: Store) -> dict[str, dict[str, Any]]:
    """Return the attributes of each person who has any and may be profiled.

    Raises
    ------
    StoreUnavailableError
        If the store does not answer.
    """
    found: dict[str, dict[str, Any]] = {}
    async for batch in store.people.scan(("profile",)):
        for person, documents in batch:
            attributes = (documents["profile"] or {}).get("attributes")
            if attributes:
                found[person] = attributes
    refusing = await store.refusing(found)
    return {person: mine for person, mine in found.items() if person not in refusing}


def read_attributes(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return `attributes_of` the store of these settings; none where there has never been one."""
    if settings.redis_url is None and not (settings.data_dir / "valkey").is_dir():
        return {}
    return with_store(settings, attributes_of)
