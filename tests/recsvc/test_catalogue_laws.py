"""However it came about, a catalogue gives the answers of one that is built afresh."""

import asyncio
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from feature_store.artifact import ModelArtifact
from feature_store.catalogue import Catalogue, hash_ids
from feature_store.catalogue_files import CatalogueFiles, merged_frame
from feature_store.conditions import parse_condition
from feature_store.embedded import EmbeddedServer
from feature_store.item_changes import ItemWrite
from feature_store.item_columns import COLUMNS, as_document, columns_of, stub_columns
from feature_store.item_names import Kind
from feature_store.item_search import ItemSearch, search
from feature_store.preferences import NO_PREFERENCES
from feature_store.registry import ModelRegistry
from feature_store.schema import Item
from feature_store.store import Store
from recsvc.engine import recommend
from recsvc.requests import RecommendationRequest
from recsvc.retrieval import JoinedModel
from recsvc.snapshot import Snapshot, SnapshotHolder
from tests.recsvc.shop import NOW_S, TOKENS, bought, item_ids, rows_of, write_artifact

IDS = [*item_ids(14), "a/b", "{x} é"]
KINDS = (frozenset({"product"}), frozenset({"content"}), frozenset({"product", "content"}))
MARKETS = (None, "DE", "FR")
TIMES_S = (NOW_S - 86_400, NOW_S, NOW_S + 86_400)
CONDITIONS = [
    parse_condition({"field": "item.brand", "op": "eq", "value": "A"}),
    parse_condition({"not": {"field": "item.categories", "op": "under", "value": "taste 1"}}),
    parse_condition({"field": "item.price", "op": "gte", "value": 2}),
    parse_condition({"field": "item.attributes.size", "op": "eq", "value": "L"}),
]
NAMES: list[tuple[Kind, str]] = [
    *(("brand", text) for text in ("A", "B", "C")),
    *(("category", text) for text in ("taste", "taste 0", "taste 1", "taste 1 > x")),
]
REQUESTS = [
    RecommendationRequest(placement="home", limit=6),
    RecommendationRequest(placement="new", limit=20),
    RecommendationRequest(placement="trending", limit=5, context={"country": "DE"}),
    RecommendationRequest(placement="home", limit=20, filter=CONDITIONS[1]),
]

ids = st.sampled_from(IDS)
money = st.sampled_from(["1", "2.5", "3"]).map(lambda one: {"amount": one, "currency": "EUR"})
times = st.sampled_from(
    [datetime.fromtimestamp(at + 1, UTC).isoformat() for at in TIMES_S]  # a second after each
)
terms = st.fixed_dictionaries({}, optional={"available": st.booleans(), "price": money})
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "kind": st.sampled_from(["product", "content"]),
    "title": st.sampled_from(["Red shoe", "Blue Shoes", "ÄRA"]),
    "brand": st.sampled_from(["A", "B"]),
    "price": money,
    "categories": st.lists(
        st.sampled_from(["taste 0", "taste 1", "taste 1 > x", "taste 2"]), max_size=2
    ),
    "available": st.booleans(),
    "published_at": times,
    "expires_at": times,
    "group_id": st.sampled_from(["g", "h"]),
    "attributes": st.dictionaries(
        st.sampled_from(["size", "color"]), st.sampled_from(["L", 3]), max_size=2
    ),
    "markets": st.dictionaries(st.sampled_from(["DE", "FR"]), terms, max_size=2),
}
bodies = st.fixed_dictionaries({}, optional=FIELDS)
patches = st.fixed_dictionaries(
    {}, optional={name: st.none() | values for name, values in FIELDS.items()}
)


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7396, section 2, word for word."""
    if not isinstance(patch, dict):
        return patch
    target = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            target.pop(name, None)
        else:
            target[name] = merge_patch(target.get(name), value)
    return target


def document_of(item_id: str, body: dict[str, Any]) -> dict[str, Any]:
    return as_document(columns_of(Item.model_validate({**body, "item_id": item_id})))


class CatalogueMachine(RuleBasedStateMachine):
    """One worker's snapshot, and beside it what everything should be."""

    url: ClassVar[str]

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        data = Path(self.folder.name)
        self.runner = asyncio.Runner()
        self.store = self.runner.run(Store.open(self.url, read_timeout_s=5.0))
        self.runner.run(self.emptied())
        self.files = CatalogueFiles(data / "catalogue")
        self.models = data / "models"
        self.holder = SnapshotHolder(data)
        self.artifact: ModelArtifact | None = None
        self.rows: dict[str, int] = {}
        self.items: dict[str, dict[str, Any] | None] = {}

    async def emptied(self) -> None:
        await self.store._redis.flushall()

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.runner.run(self.store.close())
            self.runner.close()
            self.folder.cleanup()

    def write(self, *changes: ItemWrite) -> None:
        assert self.runner.run(self.store.catalogue.write(changes))
        for change in changes:
            self.rows.setdefault(change.item_id, len(self.rows))

    @rule(item_id=ids, body=bodies)
    def put(self, item_id: str, body: dict[str, Any]) -> None:
        self.write(ItemWrite("put", item_id, body))
        self.items[item_id] = document_of(item_id, body)

    @rule(batch=st.dictionaries(ids, bodies, min_size=1, max_size=6))
    def put_many(self, batch: dict[str, dict[str, Any]]) -> None:
        self.write(*(ItemWrite("put", one, body) for one, body in batch.items()))
        self.items |= {one: document_of(one, body) for one, body in batch.items()}

    @rule(item_id=ids, patch=patches)
    def patch(self, item_id: str, patch: dict[str, Any]) -> None:
        before = self.items.get(item_id)
        if item_id not in self.rows:
            return
        self.write(ItemWrite("patch", item_id, patch))
        if before is not None:
            body = merge_patch({k: v for k, v in before.items() if v is not None}, patch)
            self.items[item_id] = document_of(item_id, body)

    @rule(item_id=ids)
    def delete(self, item_id: str) -> None:
        if item_id in self.rows:
            self.write(ItemWrite("delete", item_id, {}))
            self.items[item_id] = None

    @rule(names=st.lists(ids, min_size=1, max_size=4, unique=True))
    def an_event_names(self, names: list[str]) -> None:
        self.runner.run(self.store.catalogue.rows_of(names))
        for name in names:
            if name not in self.rows:
                self.rows[name] = len(self.rows)
                self.items[name] = as_document(stub_columns(name))

    @rule(batch=st.dictionaries(ids, bodies, min_size=1, max_size=6))
    def import_(self, batch: dict[str, dict[str, Any]]) -> None:
        items = [Item.model_validate({**body, "item_id": one}) for one, body in batch.items()]
        frame = pl.DataFrame([columns_of(item) for item in items], schema=COLUMNS)
        self.runner.run(self.store.catalogue.import_items(self.files, frame))
        for one, body in batch.items():
            self.rows.setdefault(one, len(self.rows))
            self.items[one] = document_of(one, body)

    @rule()
    def compact(self) -> None:
        self.runner.run(self.store.catalogue.compact(self.files, 1))

    @rule(n_items=st.integers(1, 16), knows_content=st.booleans())
    def train(self, n_items: int, knows_content: bool) -> None:
        tokens = TOKENS if knows_content else None
        self.artifact = write_artifact(
            self.models, n_items, n_items, tokens=tokens, n_rows=len(self.rows)
        )
        ModelRegistry(self.models).publish(self.artifact.version, datetime.now(UTC))

    @rule(n_entries=st.integers(1, 4))
    def hear_of_some(self, n_entries: int) -> None:
        known = self.holder.current.catalogue_sequence
        changes = self.runner.run(self.store.catalogue.changes_since(known))
        if changes is not None:
            some = changes[:n_entries]
            self.holder.apply_changes(some, known + len(some))

    @rule()
    def refresh(self) -> None:
        before = self.holder.current.catalogue_sequence
        self.holder.refresh()
        assert self.holder.current.catalogue_sequence >= before

    @precondition(lambda self: self.rows)
    @rule()
    def compare(self) -> None:
        """Catch up as a worker does; then nothing tells it from a catalogue built afresh."""
        # What an import brings is in its file, of which workers hear by themselves.
        self.holder.refresh()
        known = self.holder.current.catalogue_sequence
        changes = self.runner.run(self.store.catalogue.changes_since(known))
        assert changes is not None
        self.holder.apply_changes(changes, known + len(changes))
        snapshot = self.holder.current
        assert snapshot.catalogue_sequence == self.runner.run(self.store.catalogue.sequence())
        fresh = self.fresh()
        self.same_items(snapshot.catalogue, fresh)
        self.same_masks(snapshot.catalogue, fresh)
        served = snapshot.model.artifact
        self.same_answers(snapshot, Snapshot(fresh, JoinedModel(served, fresh)))

    def fresh(self) -> Catalogue:
        """Return a catalogue made of what this test has noted down."""
        columns = []
        for item_id in self.rows:
            document = self.items[item_id]
            row = self.holder.current.catalogue.columns_at(self.rows[item_id])
            assert row is not None
            assert row["deleted"] == (document is None)
            columns.append(row)
        frame = merged_frame(
            Catalogue.empty(), pl.DataFrame(columns, schema=COLUMNS), range(len(columns))
        )
        return Catalogue(frame, *hash_ids(frame["item_id"]))

    def same_items(self, catalogue: Catalogue, fresh: Catalogue) -> None:
        assert catalogue.n_rows == fresh.n_rows == len(self.rows)
        assert [catalogue.row(one) for one in IDS] == [self.rows.get(one) for one in IDS]
        many = IDS * 8
        assert catalogue.rows(many).tolist() == [self.rows.get(one, -1) for one in many]
        for item_id, row in self.rows.items():
            assert catalogue.item_id(row) == item_id
            document = self.items[item_id]
            assert catalogue.is_known(row) == (document is not None)
            if document is not None:
                assert catalogue.item(row) == document
        for wanted in (ItemSearch("sho"), ItemSearch(brand="A"), ItemSearch("i0000", "B")):
            assert search(catalogue, wanted, 0, 99) == search(fresh, wanted, 0, 99)

    def same_masks(self, catalogue: Catalogue, fresh: Catalogue) -> None:
        for now_s in TIMES_S:
            for kinds in KINDS:
                for market in MARKETS:
                    mask = catalogue.showable(now_s, kinds, market)
                    assert (mask == fresh.showable(now_s, kinds, market)).all()
                    assert mask.tolist() == [
                        self.is_shown(one, now_s, kinds, market) for one in self.rows
                    ]
        for condition in CONDITIONS:
            mask = catalogue.mask(condition.key, condition.expression())
            assert (mask == fresh.mask(condition.key, condition.expression())).all()
            assert not mask[
                [row for one, row in self.rows.items() if self.items[one] is None]
            ].any()

        for kind, text in NAMES:
            expected = {row for one, row in self.rows.items() if self.has_name(one, kind, text)}
            for known in (catalogue, fresh):
                found = np.unpackbits(known.named(kind, text), count=known.n_rows)
                assert set(np.flatnonzero(found)) == expected, (kind, text)

    def has_name(self, item_id: str, kind: Kind, text: str) -> bool:
        item = self.items[item_id]
        if item is None:
            return False
        if kind == "brand":
            return bool(item["brand"] == text)
        return any(f"{path} > ".startswith(f"{text} > ") for path in item["categories"])

    def is_shown(self, item_id: str, now_s: int, kinds: frozenset[str], market: str | None) -> bool:
        item = self.items[item_id]
        if item is None or item["kind"] not in kinds:
            return False
        now = datetime.fromtimestamp(now_s, UTC)
        terms = item["markets"].get(market, {})
        published, expires = (
            None if item[name] is None else datetime.fromisoformat(item[name])
            for name in ("published_at", "expires_at")
        )
        return (
            bool(terms.get("available", item["available"]))
            and (published is None or published <= now)
            and (expires is None or expires > now)
        )

    def same_answers(self, snapshot: Snapshot, fresh: Snapshot) -> None:
        for name in ("popular", "trending", "newest", "by_popularity", "model_rows", "recent"):
            mine, theirs = getattr(snapshot.model, name), getattr(fresh.model, name)
            assert np.array_equal(mine, theirs), name
        n_rows = len(self.rows)
        for state in (bought(), bought((0, 3), (n_rows - 1, 9))):
            for request in REQUESTS:
                answers = [
                    recommend(one, state, NO_PREFERENCES, request, NOW_S)
                    for one in (snapshot, fresh)
                ]
                assert rows_of(answers[0]) == rows_of(answers[1])
                groups = [
                    snapshot.catalogue.item(row)["group_id"] or row for row in rows_of(answers[0])
                ]
                assert len(set(groups)) == len(groups)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path_factory.mktemp("server"), fsync="everysec") as running:
        yield running


@pytest.mark.timeout(600)
def test_any_history_gives_the_answers_of_a_fresh_start(server: EmbeddedServer) -> None:
    CatalogueMachine.url = server.url
    CatalogueMachine.TestCase.settings = settings(
        max_examples=12,
        stateful_step_count=30,
        deadline=None,
        # A history is shown as it was found: to shorten it takes longer than anybody waits.
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    CatalogueMachine.TestCase().runTest()
