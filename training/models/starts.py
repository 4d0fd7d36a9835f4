"""Where a customer without a history starts: the mean taste of people like them.

Only means of groups leave this file, of at least `min_people` each (k-anonymity; Sweeney, 2002),
and drawn towards that of everybody, so that a small group says little. No person is in an artifact.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from feature_store.content import EVERY, attribute_tokens, token_hashes

F32 = npt.NDArray[np.float32]

MIN_PEOPLE = 20
"""A group of fewer people says too much about each of them."""
PRIOR_PEOPLE = 20.0
"""Average people who are added to each group."""


def no_starts(n_factors: int) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of a shop that knows nothing of its people."""
    return {
        "start_groups": np.zeros(0, dtype=np.uint64),
        "start_vectors": np.zeros((0, n_factors), dtype=np.float32),
    }


def fit_starts(
    vectors: F32,
    members: F32,
    attributes: Sequence[Mapping[str, Any]],
    *,
    min_people: int = MIN_PEOPLE,
) -> dict[str, npt.NDArray[Any]]:
    """Average the tastes of everybody, and of those who share an attribute's value.

    Parameters
    ----------
    vectors : ndarray of float32, shape (u, d)
        Folded-in vectors of any people: everybody.
    members : ndarray of float32, shape (m, d)
        Vectors of the people whose attributes are known.
    attributes : sequence of m mappings
        Of each.
    min_people : int
        Least size of a group.

    Returns
    -------
    dict
        ``start_groups`` (ascending hashes of ``content.attribute_tokens``, and of
        ``content.EVERY``, the row of everybody) and ``start_vectors``, or nothing of either when
        no group is large enough.
    """
    n_factors = vectors.shape[1]
    groups: dict[str, list[int]] = {}
    for person, said in enumerate(attributes):
        for token in set(attribute_tokens(said)):
            groups.setdefault(token, []).append(person)
    groups = {token: people for token, people in groups.items() if len(people) >= min_people}
    if len(vectors) < min_people or not groups:
        return no_starts(n_factors)
    every = vectors.mean(axis=0)
    means = [
        (members[people].sum(axis=0) + PRIOR_PEOPLE * every) / (len(people) + PRIOR_PEOPLE)
        for people in groups.values()
    ]
    hashes = token_hashes([EVERY, *groups])
    order = np.argsort(hashes)
    return {
        "start_groups": hashes[order],
        "start_vectors": np.stack([every, *means])[order].astype(np.float32),
    }
