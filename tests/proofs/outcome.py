"""What the customers of the proof share, and what is counted."""

import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.proofs.marketers import Marketers
from tests.proofs.wire import Wire
from tests.recsvc.signing import Backend

TOLD = 20
"""Violations of a kind that are told in full."""


@dataclass
class Outcome:
    """What a run has shown.

    ``steps`` counts what was done and compared, ``violations`` by kind, ``busy`` how often the
    service asked to come again.
    """

    steps: int = 0
    seconds: float = 0.0
    actions: Counter[str] = field(default_factory=Counter)
    violations: Counter[str] = field(default_factory=Counter)
    told: list[str] = field(default_factory=list)
    busy: int = 0
    rules: int = 0
    recalls: int = 0
    events_kept: int = 0
    events_withheld: int = 0
    kills: int = 0
    broken: int = 0
    """Requests that were sent again because whoever should answer was killed."""

    def wrong(self, kind: str, detail: str) -> None:
        """Count a violation."""
        self.violations[kind] += 1
        if self.violations[kind] <= TOLD:
            self.told.append(f"{kind}: {detail[:600]}")
            sys.stderr.write(f"{self.told[-1]}\n")


@dataclass
class Shop:
    """What all customers share; ``server`` is a client of Redis."""

    wire: Wire
    server: Any
    backend: Backend
    marketers: Marketers
    outcome: Outcome
    key: str
    public_key: str
    opt_in: bool = False
    kept_ids: set[str] = field(default_factory=set)
    withheld_ids: set[str] = field(default_factory=set)
