"""Which user a visitor became: the value of the visitor's link, and its row in the log."""

import hashlib
from dataclasses import dataclass

ROW_TYPE = "merge"
"""The ``type`` of a merge in streams and log; it is no event."""
SEALED, CLEARED = b">", b"="
_MILLISECONDS_FROM = 100_000_000_000
"""Links that were sealed by earlier versions have seconds, which are less."""


@dataclass(frozen=True, slots=True)
class Link:
    """Whose a visitor's events are.

    Parameters
    ----------
    person : str
        Key of the user, ``u:...``.
    sealed_ms : int or None
        When the visitor's own state was sealed, in milliseconds since 1970; ``None`` once it has
        been absorbed.
    """

    person: str
    sealed_ms: int | None

    @property
    def complete(self) -> bool:
        """Whether the visitor's own state has been absorbed."""
        return self.sealed_ms is None

    @property
    def value(self) -> bytes:
        """What the link key holds."""
        if self.sealed_ms is None:
            return CLEARED + self.person.encode()
        return SEALED + b"%d " % self.sealed_ms + self.person.encode()


def read_link(value: bytes | None) -> Link | None:
    """Read the value of a link key; ``None`` for a visitor who is nobody else."""
    if value is None:
        return None
    if value[:1] == CLEARED:
        return Link(value[1:].decode(), None)
    sealed, _, person = value[1:].partition(b" ")
    sealed_ms = int(sealed)
    return Link(person.decode(), sealed_ms if sealed_ms >= _MILLISECONDS_FROM else sealed_ms * 1000)


def linked_digest(visitor: str, digest: bytes) -> bytes:
    """Return the digest of a visitor's event id among those of the user.

    Parameters
    ----------
    visitor : str
        Key of the visitor, ``a:...``.
    digest : bytes
        Digest of trust class and event id.
    """
    return hashlib.blake2b(digest + visitor.encode(), digest_size=8).digest()
