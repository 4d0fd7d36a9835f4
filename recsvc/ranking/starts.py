"""A start for customers without a history: what they say of themselves instead of what they did.

Interests that somebody names, or follows, lift the items of those categories and brands, and what
is near their mean; attributes that a shop knows become the mean taste of people who share them
(``training/models/starts.py``). Both re-weight what is popular: a score is the log of popularity
plus how much more this taste finds in an item than an average taste does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from feature_store.artifact import ModelArtifact
from feature_store.catalogue import Catalogue
from feature_store.content import EVERY, attribute_tokens, token_hash, token_hashes
from feature_store.preferences import NO_PREFERENCES, Preferences
from feature_store.signals import FEATURES
from recsvc.customer.named import Name, bits_of, covered, followed_names
from recsvc.ranking.topics import paths_of_codes

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]

MAX_INTERESTS = 20
BEST = 100
NAMED, LIKE_NAMED = np.float32(0.5), np.float32(0.25)
_REMEMBERED = 1_000
_WEIGHTS = {"popularity_recent": 1.0, "growth": -0.5, "collaborative": 1.0}
START_WEIGHTS: F32 = np.array([_WEIGHTS.get(name, 0.0) for name in FEATURES], dtype=np.float32)
"""Of the features of a candidate; less half of the growth, popularity is the geometric mean of
recent and overall popularity."""
_LEAST = np.float32(0.01)


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """What is known of the taste of somebody who did nothing yet.

    Parameters
    ----------
    group, everybody : ndarray of float32, shape (d,), or None
        Mean vectors of people with these attributes, and of all.
    interests : Interest or None
        What was named, joined.
    named : tuple of (str, Interest)
        Each name.
    """

    group: F32 | None
    everybody: F32 | None
    interests: "Interest | None"
    named: tuple[tuple[str, "Interest"], ...] = ()

    def names_of(self, row: int) -> tuple[str, ...]:
        """Return the names that cover an item; none for one that is only like what was named."""
        return tuple(name for name, interest in self.named if interest.covers(row))

    @property
    def vectors(self) -> list[F32]:
        """What items are looked up by."""
        named = None if self.interests is None else self.interests.vector
        return [vector for vector in (named, self.group) if vector is not None]

    def scores(self, rows: npt.NDArray[np.integer], factors: F32) -> F32:
        """Return the log of how much better than average each item fits.

        Parameters
        ----------
        rows : ndarray of int, shape (m,)
            Catalogue rows.
        factors : ndarray of float32, shape (m, d)
            Of the items.
        """
        total = np.zeros(len(factors), dtype=np.float32)
        if self.group is not None and self.everybody is not None:
            total += _logs(factors @ self.group) - _logs(factors @ self.everybody)
        if self.interests is not None:
            total += self.interests.scores(rows, factors)
        return total


@dataclass(frozen=True, slots=True, eq=False)
class Interest:
    """Categories and brands that somebody named.

    Parameters
    ----------
    vector : ndarray of float32, shape (d,)
        Popularity-weighted mean of their factors, scaled so that the best of them scores 1.
    average : ndarray of float32, shape (d,)
        The same of all items.
    rows : ndarray of int32
        Catalogue rows of their items, ascending.
    best : ndarray of int32
        Of these the most popular ones.
    """

    vector: F32
    average: F32
    rows: I32
    best: I32

    def covers(self, row: int) -> bool:
        """Tell whether an item is among those that were named."""
        at = int(np.searchsorted(self.rows, row))
        return at < len(self.rows) and int(self.rows[at]) == row

    def scores(self, rows: npt.NDArray[np.integer], factors: F32) -> F32:
        """Return how much better than average items fit, as `Start.scores` does.

        Both weights are measured (``docs/evaluation.md``): more of either makes the lists of those
        who named what they buy most worse again.
        """
        at = np.minimum(np.searchsorted(self.rows, rows), len(self.rows) - 1)
        like = _logs(factors @ self.vector) - _logs(factors @ self.average)
        named: F32 = NAMED * (self.rows[at] == rows).astype(np.float32)
        return named + LIKE_NAMED * like


NOTHING_SAID = Start(None, None, None)
"""Where somebody starts who follows what no training has heard of: at what is popular."""


def _logs(scores: F32) -> F32:
    logs: F32 = np.log(np.maximum(scores, 0) + _LEAST)
    return logs


class Starts:
    """Makes starts from the groups and items of a model.

    Parameters
    ----------
    artifact : ModelArtifact or None
        The model.
    catalogue : Catalogue
        Where categories and brands are looked up.
    catalogue_rows : ndarray of int32, shape (n,)
        The catalogue row of each model row, -1 for none.
    """

    def __init__(
        self, artifact: ModelArtifact | None, catalogue: Catalogue, catalogue_rows: I32
    ) -> None:
        self._arrays: Mapping[str, npt.NDArray[Any]] = artifact.arrays if artifact else {}
        self._catalogue = catalogue
        self._catalogue_rows = catalogue_rows
        self._known: dict[str | Name, Interest | None] = {}

    @property
    def has_groups(self) -> bool:
        """Whether attributes say anything."""
        return len(self._arrays.get("start_groups", ())) > 0

    def of_context(self, profile: bytes | None, preferences: Preferences) -> Start | None:
        """Return a start from what was read of a person, as `of` does.

        Parameters
        ----------
        profile : bytes or None
            The profile as the store keeps it, if it was read.
        preferences : Preferences
            What the person said; of their fields those that name categories and brands are used.
        """
        if preferences is NO_PREFERENCES and not (profile and self.has_groups):
            return None
        read = orjson.loads(profile) if profile and self.has_groups else {}
        return self.of_person(read.get("attributes") or {}, preferences)

    def of_person(self, attributes: Mapping[str, Any], preferences: Preferences) -> Start | None:
        """Return a start from what a shop knows and what a person said, as `of` does."""
        interests: list[str | Name] = [*sorted(preferences.interests)]
        interests += followed_names(preferences)
        return self.of(interests, attributes) if interests or attributes else None

    def of(self, interests: Sequence[str | Name], attributes: Mapping[str, Any]) -> Start | None:
        """Return a start.

        Parameters
        ----------
        interests : sequence of str or Name
            Category paths, steps of them, or brands; a ``Name`` says which. Of more than 20 the
            first.
        attributes : mapping
            Of the person's profile.

        Returns
        -------
        Start or None
            ``None`` when the model knows neither an interest nor a group.
        """
        if not self._arrays or len(self._arrays["item_factors"]) == 0:
            return None
        named = tuple(
            (name if isinstance(name, str) else name.text, interest)
            for name in interests[:MAX_INTERESTS]
            if (interest := self._interest(name)) is not None
        )
        group, everybody = self._group(attributes)
        if not named and group is None:
            return None
        joined = _joined([interest for _, interest in named]) if named else None
        return Start(group, everybody, joined, named)

    def _group(self, attributes: Mapping[str, Any]) -> tuple[F32 | None, F32 | None]:
        if not attributes or not self.has_groups:
            return None, None
        groups, vectors = self._arrays["start_groups"], self._arrays["start_vectors"]
        hashes = token_hashes(attribute_tokens(attributes))
        at = np.minimum(np.searchsorted(groups, hashes), len(groups) - 1)
        at = at[groups[at] == hashes]
        if len(at) == 0:
            return None, None
        every = int(np.searchsorted(groups, np.uint64(token_hash(EVERY))))
        mean: F32 = vectors[at].mean(axis=0)
        return mean, np.asarray(vectors[every])

    def _interest(self, name: str | Name) -> Interest | None:
        if name not in self._known:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[name] = self._read(name)
        return self._known[name]

    def _read(self, name: str | Name) -> Interest | None:
        """Return the items of a category or brand, and their mean."""
        rows = self._catalogue_rows
        known = np.flatnonzero(rows >= 0)
        if isinstance(name, Name):
            inside = known[covered(bits_of(self._catalogue, name), rows[known])]
        else:
            inside = known[self._inside(name, rows[known])]
        if len(inside) == 0:
            return None
        recent = self._arrays["popularity_recent"][inside]
        vector = _scaled_mean(self._arrays["item_factors"][inside], recent)
        if vector is None or self._average is None:
            return None
        catalogue_rows = rows[inside]
        best = np.argsort(-recent, kind="stable")[:BEST]
        return Interest(vector, self._average, np.sort(catalogue_rows), catalogue_rows[best])

    def _inside(self, name: str, rows: I32) -> npt.NDArray[np.bool_]:
        """Tell which rows are in a category, by any step of its path, or else of a brand."""
        steps = f" > {name.lower()} > "
        codes = [code for code, path in self._paths.items() if steps in f" > {path} > "]
        if codes:
            return np.isin(self._catalogue.category_codes[rows], codes)
        return covered(bits_of(self._catalogue, Name("brand", name)), rows)

    @cached_property
    def _average(self) -> F32 | None:
        return _scaled_mean(self._arrays["item_factors"], self._arrays["popularity_recent"])

    @cached_property
    def _paths(self) -> dict[int, str]:
        codes = self._catalogue.category_codes
        return paths_of_codes(self._catalogue, codes, int(codes.max(initial=0)) + 1)


def _scaled_mean(factors: F32, weights: F32) -> F32 | None:
    """Return a weighted mean, scaled so that the best of its items scores 1."""
    weights = weights + np.float32(1e-9)
    mean: F32 = (weights / weights.sum()) @ factors
    best = float((factors @ mean).max())
    return None if best <= 0 else mean / np.float32(best)


def _joined(named: Sequence[Interest]) -> Interest:
    """Return several interests as one."""
    if len(named) == 1:
        return named[0]
    return Interest(
        np.stack([one.vector for one in named]).mean(axis=0),
        named[0].average,
        np.unique(np.concatenate([one.rows for one in named])),
        np.concatenate([one.best for one in named]),
    )
