"""What is forgotten of a person, read so that a script can tell whether it is still the same."""

from collections.abc import Iterator
from typing import Any

from feature_store import keys
from feature_store.forgetting.ledger import NO_CUT, Cut, digest_of, read_cut

Arguments = list[bytes | str | int]


class Salts:
    """The salts of the server's digests, as this process read them last."""

    def __init__(self) -> None:
        self.value: bytes | None = None
        self.all: tuple[bytes, ...] = ()

    def learn(self, value: bytes | None, used: bytes | None) -> bool:
        """Take what the server holds.

        Parameters
        ----------
        value : bytes or None
            Was read just now.
        used : bytes or None
            `value` of this object when the digests were made; another task may have learned since.

        Returns
        -------
        bool
            Whether the digests are those of the server.
        """
        if value != self.value:
            self.value = value
            self.all = tuple(bytes.fromhex(one) for one in (value or b"").decode().split())
        return value == used

    def digests(self, person: str) -> tuple[str, ...]:
        """Return by what a person may be known."""
        return tuple(digest_of(salt, person) for salt in self.all)


class Guard:
    """What is forgotten of one person, as it was read, for a script to compare.

    Parameters
    ----------
    salts : Salts
        Of the process.
    person : str
        ``schema.person_of``.
    """

    def __init__(self, salts: Salts, person: str) -> None:
        self.key = keys.forgotten(keys.shard_of(person))
        self.digests = salts.digests(person)
        self._values: list[bytes | None] = []

    def ask(self, pipeline: Any) -> None:
        """Put the question into a pipeline; nothing is asked where nobody is forgotten."""
        if self.digests:
            pipeline.hmget(self.key, self.digests)

    def take(self, answers: Iterator[Any]) -> None:
        """Take the answer out of those of the pipeline."""
        if self.digests:
            self._values = next(answers)

    @property
    def cut(self) -> Cut:
        """What is forgotten."""
        cut = NO_CUT
        for value in self._values:
            cut = cut.later(read_cut(value))
        return cut

    def arguments(self) -> Arguments:
        """Return what ``scripts._NOT_FORGOTTEN`` compares."""
        held = b",".join(value or b"" for value in self._values)
        return [len(self.digests), *self.digests, held]
