"""Marketers who try to bring back what customers hide, and take products back from the market."""

import random
from collections import deque
from typing import Any

from tests.proofs.wire import Wire
from tests.proofs.word_of import BRANDS, ITEMS, PATHS

RULES, RECALLS = 8, 3


class Marketers:
    """Publish rules and recalls, one after the other.

    Parameters
    ----------
    wire : Wire
        The service.
    key : str
        That may do all this.
    rng : Random
        Chooses.
    """

    def __init__(self, wire: Wire, key: str, rng: random.Random) -> None:
        self._wire, self._rng = wire, rng
        self._headers = {"Authorization": f"Bearer {key}"}
        self._revisions: dict[str, int] = {}
        self._recalls: dict[str, list[str]] = {}
        self.wanted: deque[str] = deque(maxlen=40)
        """What customers hid last."""
        self.recalled: set[str] = set()
        """What is recalled for sure: since an answer that is here, until its end is asked for."""
        self.epoch = 0
        """Odd while something changes."""
        self.n_rules = self.n_recalls = 0

    async def _ask(self, method: str, target: str, body: Any = None, **headers: str) -> Any:
        broken = self._wire.broken
        status, found = await self._wire.ask(method, target, body, **self._headers, **headers)
        # It may have been done already by a worker that died before it could say so.
        done = {"PUT": (409, 412), "DELETE": (404,)}.get(method, ())
        if status in done and self._wire.broken > broken:
            return None
        assert 200 <= status < 300, (method, target, body, status, found)
        return found

    async def step(self) -> None:
        """Change something that everybody sees."""
        self.epoch += 1
        chance = self._rng.random()
        if chance < 0.75:
            await self._publish()
        elif chance < 0.85:
            await self._ask("POST", "/v1/rules/rollback", {"rules_version": 0})
        else:
            await self._recall()
        self.epoch += 1

    async def _publish(self) -> None:
        rule_id = f"r{self._rng.randrange(RULES)}"
        known = self._revisions.get(rule_id)
        match = {"If_None_Match": "*"} if known is None else {"If_Match": f'"{known}"'}
        found = await self._ask("PUT", f"/v1/rules/{rule_id}", self._rule(), **match)
        found = found or await self._ask("GET", f"/v1/rules/{rule_id}")
        self._revisions[rule_id] = found["revision"]
        await self._ask("POST", "/v1/rules/publish", {"rule_ids": [rule_id]})
        self.n_rules += 1

    def _rule(self) -> dict[str, Any]:
        rng = self._rng
        hidden = list(self.wanted) or ITEMS
        items = list(dict.fromkeys(rng.choices(hidden, k=4) + rng.choices(ITEMS, k=1)))
        targets: list[dict[str, Any]] = [
            {"field": "item.item_id", "op": "in", "value": items},
            {"field": "item.brand", "op": "eq", "value": rng.choice(BRANDS)},
            {"field": "item.categories", "op": "under", "value": rng.choice(PATHS)},
        ]
        target, positions = rng.choice(targets), rng.sample(range(1, 8), 2)
        actions: list[dict[str, Any]] = [
            {"type": "pin", "item_ids": items, "positions": positions[: len(items)]},
            {"type": "boost", "target": target, "weight": 50.0},
            {"type": "include_only", "target": target},
            {"type": "slot", "target": target, "positions": positions},
            {"type": "bury", "target": target, "weight": 0.1},
            {"type": "exclude", "target": target},
            {"type": "cap", "by": "brand", "max": 3},
        ]
        return {
            "name": "try",
            "placements": rng.choice([["*"], ["home", "product"], ["email", "trending", "new"]]),
            "priority": rng.randrange(100),
            "action": rng.choices(actions, [5, 4, 2, 4, 1, 1, 1])[0],
        }

    async def _recall(self) -> None:
        recall_id = f"recall-{self._rng.randrange(RECALLS)}"
        if recall_id in self._recalls:
            del self._recalls[recall_id]
            self.recalled = {one for items in self._recalls.values() for one in items}
            await self._ask("DELETE", f"/v1/recalls/{recall_id}")
            return
        items = self._rng.sample(ITEMS, 3)
        body = {"item_ids": items, "reason": "splinters"}
        await self._ask("PUT", f"/v1/recalls/{recall_id}", body)
        self._recalls[recall_id] = items
        self.recalled = self.recalled | set(items)
        self.n_recalls += 1
