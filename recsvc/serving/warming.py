"""Making the first answers as fast as the later ones."""

import time
from dataclasses import replace

import numpy as np

from feature_store.preferences import NO_PREFERENCES
from feature_store.schema import PURCHASE_CODE
from feature_store.state import EMPTY_STATE, fold
from recsvc.answer import answer, new_recommendation_id
from recsvc.engine import recommend
from recsvc.requests import RecommendationRequest
from recsvc.snapshot import Snapshot

N_ITEMS = 50


def warm_up(snapshot: Snapshot) -> None:
    """Ask for every placement once, for nobody and for a made-up customer.

    It computes the masks that all requests share and brings the memory-mapped files into memory.

    Parameters
    ----------
    snapshot : Snapshot
        What is about to serve.
    """
    now_s = int(time.time())
    rows = snapshot.model.by_popularity[:N_ITEMS].astype(np.uint32)
    types = np.full(len(rows), PURCHASE_CODE, dtype=np.uint8)
    customer = fold(EMPTY_STATE, rows, types, np.full(len(rows), now_s, dtype=np.uint32))
    item_ids = tuple(
        item_id
        for row in rows[:2].tolist()
        if (item_id := snapshot.catalogue.item_id(row)) is not None
    )
    for placement in snapshot.site.placements:
        request = replace(RecommendationRequest(), placement=placement, item_ids=item_ids)
        for state in (EMPTY_STATE, customer):
            response = recommend(snapshot, state, NO_PREFERENCES, request, now_s)
            answer(response, request, new_recommendation_id(now_s * 1000, 0), [])
