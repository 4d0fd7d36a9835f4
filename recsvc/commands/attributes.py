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
    async for batch in store.people.scan(("profile", "preferences")):
        for person, documents in batch:
            attributes = (documents["profile"] or {}).get("attributes")
            said = documents["preferences"] or {}
            refused = (
                said.get("personalization") is False
                or (said.get("consent") or {}).get("profiling") is False
            )
            if attributes and not refused:
                found[person] = attributes
    return found


def read_attributes(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return `attributes_of` the store of these settings; none where there has never been one."""
    if settings.redis_url is None and not (settings.data_dir / "valkey").is_dir():
        return {}
    return with_store(settings, attributes_of)
