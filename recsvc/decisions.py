"""The record of each answer: what was shown, from where, why, by which rules, and what was not.

Most records are a line around the answer's own bytes, made at once: what the answer was chosen from
is then free again while it is still in the processor's cache. A sampled share is recorded with
every candidate, afterwards and one at a time. Lines are written to the worker's file
(``feature_store.decision_log``) ten times a second. What waits is bounded: beyond that answers go
unrecorded, which a metric counts.
"""

import asyncio
import random
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from feature_store.catalogue import Catalogue
from feature_store.decision_log import DecisionLog, DecisionWriter
from feature_store.signals import FEATURES
from feature_store.values import value_class
from recsvc.engine import Response
from recsvc.ranking.sources import Candidates
from recsvc.requests import RecommendationRequest
from recsvc.telemetry import Metrics

MAX_WAITING_BYTES = 64 << 20
"""Memory of what waits to be written: lines, and what sampled answers were chosen from."""
FLUSH_S = 0.1
FIND_ATTEMPTS = 5
SLICE = 128
"""Lines that are written before others get the event loop."""
WHOLE_BYTES = 50_000
"""What a sampled answer was chosen from takes about so much, without a mask of its own."""
HISTORY = 20
REMOVED = 10
POPULAR = 100
CANDIDATES = 200


@value_class(frozen=True, slots=True, eq=False)
class Noted:
    """One answer, to be recorded.

    Parameters
    ----------
    recommendation_id : str
        Its id.
    at_ms : int
        When it was made, in milliseconds since 1970.
    person : str or None
        Whose state it was made from; ``None`` for nobody, and for whoever may not be named.
    request : RecommendationRequest
        What was asked.
    response : Response
        What was chosen.
    body : bytes
        The answer.
    """

    recommendation_id: str
    at_ms: int
    person: str | None
    request: RecommendationRequest
    response: Response
    body: bytes


class DecisionRecorder:
    """Records the answers of one worker.

    Parameters
    ----------
    folder : Path
        ``<data dir>/decisions``.
    metrics : Metrics
        Where it counts.
    sample : float
        Share of answers that are recorded with every candidate.
    """

    def __init__(self, folder: Path, metrics: Metrics, sample: float) -> None:
        self.log = DecisionLog(folder)
        self._writer = DecisionWriter(folder)
        self._metrics = metrics
        self._sample = sample
        self._lines: list[bytes] = []
        self._lines_from_ms = 0
        self._later: list[Noted] = []
        self._waiting_bytes = 0
        outcomes = metrics.decisions.labels
        self._recorded, self._failed, self._dropped = map(
            outcomes, ("recorded", "failed", "dropped")
        )

    def note(self, noted: Noted) -> None:
        """Take an answer to be recorded."""
        if self._waiting_bytes > MAX_WAITING_BYTES:
            self._dropped.inc()
            return
        line = None if random.random() < self._sample else _line_if_any(noted)
        if line is None:
            self._later.append(noted)
            self._waiting_bytes += _bytes_of(noted)
            return
        if not self._lines:
            self._lines_from_ms = noted.at_ms
        self._lines.append(line)
        self._waiting_bytes += len(line)

    async def flush(self) -> None:
        """Record what waits now; other processes can read it when this returns.

        What is taken is written before others get the event loop: so a second caller finds written
        what a first one took, and a cancelled one loses nothing.
        """
        while self._lines or self._later:
            if self._later:
                noted = self._later.pop()
                self._waiting_bytes -= _bytes_of(noted)
                self._write([line_of(noted, whole=True)], noted.at_ms)
            if self._lines:
                part = self._lines[:SLICE]
                del self._lines[:SLICE]
                self._waiting_bytes -= sum(map(len, part))
                self._write(part, self._lines_from_ms)
            await asyncio.sleep(0)
        self._writer.close_if_due(time.time())

    def _write(self, lines: list[bytes], first_ms: int) -> None:
        try:
            self._writer.write(lines, first_ms, time.time())
        except OSError:
            self._failed.inc(len(lines))
        else:
            self._recorded.inc(len(lines))

    async def close(self) -> None:
        """Record what waits and close the file."""
        await self.flush()
        self._writer.close()

    async def find(self, recommendation_id: str, at_ms: int) -> dict[str, Any] | None:
        """Return the record of an answer of any worker of this machine."""
        await self.flush()
        return await asyncio.to_thread(self.log.find, recommendation_id, at_ms)

    async def find_soon(self, recommendation_id: str, at_ms: int) -> dict[str, Any] | None:
        """Return the record of an answer that another worker may be about to write."""
        for _ in range(FIND_ATTEMPTS):
            await asyncio.sleep(FLUSH_S)
            record = await asyncio.to_thread(self.log.find, recommendation_id, at_ms)
            if record is not None:
                return record
        return None


def _line_if_any(noted: Noted) -> bytes | None:
    """Return an answer's line, or ``None`` if it cannot be made: the answer goes out all the same.

    `DecisionRecorder.flush` meets the error again, and its caller reports it.
    """
    try:
        return line_of(noted)
    except Exception:  # noqa: BLE001
        return None


def _bytes_of(noted: Noted) -> int:
    """Return how much memory an answer keeps until it is recorded."""
    allowed = noted.response.query.allowed
    # A mask that many requests share is kept anyway.
    own = allowed.nbytes if allowed is not None and allowed.flags.writeable else 0
    return WHOLE_BYTES + own


def line_of(noted: Noted, *, whole: bool = False) -> bytes:
    """Return an answer as the decision log has it: one line of JSON around the answer's own bytes.

    Made for each answer, so it says no more than it must: items of the history by their rows.

    Parameters
    ----------
    noted : Noted
        The answer.
    whole : bool
        Whether every candidate is wanted, with what its score is made of.
    """
    response, request = noted.response, noted.request
    snapshot = response.snapshot
    record: dict[str, Any] = {
        "recommendation_id": noted.recommendation_id,
        "at": noted.at_ms,
        "person": noted.person,
        "context": request.context,
        "item_ids": request.item_ids,
        "site_sequence": snapshot.site.sequence,
        "catalogue_sequence": snapshot.catalogue_sequence,
    }
    if response.rules:
        entries = response.rules.entries
        record["rules"] = {one.rule.rule_id: one.rule.revision for one in entries}
    if response.personalized and noted.person is None:
        # Nobody is named, so nothing may say whose history it was either.
        return _around(record, noted.body)
    if response.personalized:
        record["history"] = _history(response)
    allowed = response.query.allowed
    # A mask that many requests share forbids what is not for sale, and nothing else.
    if whole or (allowed is not None and allowed.flags.writeable):
        record["removed"] = _removed(response)
    if whole:
        record["candidates"] = _candidates(response)
    return _around(record, noted.body)


def _around(record: dict[str, Any], answer: bytes) -> bytes:
    head = orjson.dumps(record, option=orjson.OPT_SERIALIZE_NUMPY)
    return b'%b,"answer":%b}' % (head[:-1], answer)


def _history(response: Response) -> list[npt.NDArray[Any]]:
    """Return what of the person's history weighed most: rows, weights, whether bought."""
    history = response.query.history
    rows, weights, bought = history.rows, history.weights, history.bought
    if len(weights) > HISTORY:
        top = weights.argpartition(-HISTORY)[-HISTORY:]
        rows, weights, bought = rows[top], weights[top], bought[top]
    # What is written must lie in memory without gaps; whoever reads it rounds.
    return [np.ascontiguousarray(column) for column in (rows, weights, bought)]


def decision_of(record: dict[str, Any], catalogue: Catalogue) -> dict[str, Any]:
    """Return a record as the API shows it.

    Parameters
    ----------
    record : dict
        As `line_of` wrote it.
    catalogue : Catalogue
        Says which items the rows of the history are.
    """
    answer, rules = record["answer"], record.get("rules", {})
    kind, _, name = (record["person"] or "").partition(":")
    history = sorted(zip(*record.get("history", ()), strict=True), key=lambda one: -one[1])
    return {
        "recommendation_id": record["recommendation_id"],
        "user_id": name if kind == "u" else None,
        "anonymous_id": name if kind == "a" else None,
        **{name: answer[name] for name in _OF_ANSWER},
        **{name: record[name] for name in _OF_RECORD},
        "items": [
            {
                **{name: item[name] for name in ("item_id", "rank", "score", "source")},
                "reason": item["reason"]["code"],
                "because": item["reason"]["item_ids"],
                "rules": _used(rules, item["rule_ids"]),
            }
            for item in answer["items"]
        ],
        "rules": _used(rules, rules),
        "history": [
            {"item_id": catalogue.item_id(row), "weight": round(weight, 4), "bought": bought}
            for row, weight, bought in history
        ],
        "removed": record.get("removed", []),
        "candidates": record.get("candidates"),
    }


_OF_ANSWER = ("placement", "model_version", "rules_version", "personalized", "degraded")
_OF_RECORD = ("context", "item_ids", "site_sequence", "catalogue_sequence")


def _used(revisions: Mapping[str, int], rule_ids: Iterable[str]) -> list[dict[str, Any]]:
    return [
        {"rule_id": rule_id, "revision": revisions[rule_id]}
        for rule_id in rule_ids
        if rule_id in revisions
    ]


def _removed(response: Response) -> list[dict[str, Any]]:
    """Return what would have been likely and was not shown, and why.

    Looked at are the candidates that score better than the last one shown, what the person knows
    best, and what is popular now. Where much is forbidden only what is allowed was scored at all.
    """
    query = response.query
    allowed = query.allowed
    if allowed is None:
        return []
    history = query.history
    known = history.rows[np.argsort(-history.weights, kind="stable")[:HISTORY]]
    rows = np.concatenate((_better(response), known, query.snapshot.model.popular[:POPULAR]))
    gone = rows[~allowed[rows]]
    ids = response.snapshot.catalogue.item_id
    return [
        {"item_id": ids(row), "by": why_not(response, row)}
        for row in list(dict.fromkeys(gone.tolist()))[:REMOVED]
    ]


def _better(response: Response) -> npt.NDArray[np.integer]:
    """Return the candidates that score better than the last one shown, best first."""
    natural = _natural(response)
    if natural is None:
        return np.zeros(0, dtype=np.int64)
    candidates, last = natural
    if candidates.is_sorted:
        return candidates.rows[: len(response.chosen) + REMOVED]
    better = np.flatnonzero(candidates.scores > last)
    return candidates.rows[better[np.argsort(-candidates.scores[better], kind="stable")]]


def _natural(response: Response) -> tuple[Candidates, float] | None:
    """Return the candidates that most items came from, and the last score that was shown."""
    shown = [one for one in response.chosen if one.candidates.source != "pinned"]
    if not shown:
        return None
    candidates = shown[0].candidates
    return candidates, min(one.score for one in shown if one.candidates is candidates)


def why_not(response: Response, row: int) -> list[str]:
    """Return for what reasons an item was not in a list.

    Returns
    -------
    list of str
        Of ``recalled``, ``not_showable`` (unavailable, expired, not published, of another kind),
        ``on_the_page``, ``rule:ID``; ``hidden_or_filtered`` if it is none of these.
    """
    snapshot, query = response.snapshot, response.query
    found = []
    if snapshot.recalled is not None and snapshot.recalled[row]:
        found.append("recalled")
    if not snapshot.catalogue.showable(query.now_s, response.placement.kinds)[row]:
        found.append("not_showable")
    if row in query.about:
        found.append("on_the_page")
    found += [f"rule:{rule_id}" for rule_id in response.rules.removed_by(row)]
    return found or ["hidden_or_filtered"]


def _candidates(response: Response) -> list[dict[str, Any]]:
    """Return the best candidates of the first source with the parts of their scores."""
    natural = _natural(response)
    if natural is None:
        return []
    candidates, _ = natural
    order = np.argsort(-candidates.scores, kind="stable")
    order = np.arange(len(order)) if candidates.is_sorted else order
    order = order[:CANDIDATES]
    ids = response.snapshot.catalogue.item_id
    rows, scores = candidates.rows[order].tolist(), _rounded(candidates.scores[order])
    found: list[dict[str, Any]] = [
        {"item_id": ids(row), "score": score} for row, score in zip(rows, scores, strict=True)
    ]
    if candidates.features is not None:
        parts = _rounded((candidates.features[:, order] * response.query.weights[:, None]).T)
        for entry, each in zip(found, parts, strict=True):
            entry["score_parts"] = dict(zip(FEATURES, each, strict=True))
        if candidates.lifts is not None:
            for entry, lift in zip(found, _rounded(candidates.lifts[order]), strict=True):
                entry["score_parts"]["followed"] = lift
    return found


def _rounded(values: npt.NDArray[np.floating[Any]]) -> list[Any]:
    """Return numbers as JSON has them, five digits behind the point."""
    digits: list[Any] = values.astype(np.float64).round(5).tolist()
    return digits
