"""Any sequence of events, sign-ins, refusals, resets and erasures against a model of few lines."""

import asyncio
import contextlib
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from feature_store.archiver import Archiver
from feature_store.embedded import EmbeddedServer
from feature_store.errors import ConflictError
from feature_store.event_log import EventLog
from feature_store.facts import PersonFacts, fact_frame, people_of
from feature_store.impressions import NO_IMPRESSIONS
from feature_store.rebuilding import rebuild
from feature_store.schema import Event, EventType, person_of
from feature_store.state import EMPTY_STATE
from feature_store.store import Store
from tests.feature_store.lives import did, now
from tests.feature_store.test_forgetting_races import known
from tests.feature_store.test_merging import STEPS, Killed, dying
from tests.feature_store.test_rebuilding import snapshot

USERS, VISITORS = ("ann", "bob"), ("v", "w")
PEOPLE = [*(f"u:{user}" for user in USERS), *(f"a:{visitor}" for visitor in VISITORS)]
KINDS = (EventType.PURCHASE, EventType.IMPRESSION, EventType.SEARCH)

ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.sampled_from(PEOPLE), st.sampled_from(KINDS)),
        st.tuples(st.just("again"), st.integers(0, 5)),
        st.tuples(
            st.just("merge"),
            st.sampled_from(USERS),
            st.sampled_from(VISITORS),
            st.sampled_from([None, *STEPS]),
        ),
        st.tuples(st.just("erase"), st.sampled_from(USERS)),
        st.tuples(st.just("reset"), st.sampled_from(PEOPLE)),
        st.tuples(st.just("refuse"), st.sampled_from(PEOPLE), st.booleans()),
    ),
    min_size=12,
    max_size=30,
)


@dataclass
class Model:
    """What must be known, in terms of who did which event, counted in the order of happening."""

    happened: list[Event] = field(default_factory=list)
    kept: dict[str, dict[tuple[str, int], Event]] = field(default_factory=lambda: defaultdict(dict))
    cut: dict[str, int] = field(default_factory=dict)
    link: dict[str, str] = field(default_factory=dict)
    refusing: set[str] = field(default_factory=set)

    def append(self, number: int) -> tuple[int, int, int]:
        """Return how many are accepted, duplicates, and withheld."""
        event = self.happened[number]
        person = person_of(event.user_id, event.anonymous_id)
        assert person is not None
        target = self.meet(person)
        if number < max(self.cut.get(person, 0), self.cut.get(target, 0)):
            return 0, 0, 1
        if target in self.refusing:
            return 0, 0, 1
        if (person, number) in self.kept[target]:
            return 0, 1, 0
        self.kept[target][person, number] = event
        return 1, 0, 0

    def meet(self, person: str) -> str:
        """Return who somebody has become; whoever meets a visitor completes the merge."""
        user = self.link.get(person, person)
        if person in self.link and person in self.refusing:
            self.refusing.remove(person)
            self.refusing.add(user)
        return user

    def merge(self, user: str, visitor: str, *, halfway: bool = False) -> None:
        """Let a visitor become a user; one that dies halfway has promised nobody anything yet."""
        if visitor not in self.link:
            self.link[visitor] = user
            self.kept[user] |= self.kept.pop(visitor, {})
        if not halfway:
            self.meet(visitor)

    def forget(self, person: str, *, erase: bool) -> None:
        for one in [person, *(v for v, user in self.link.items() if user == person)]:
            self.cut[one] = len(self.happened)
            self.kept.pop(one, None)
            if erase:
                self.link.pop(one, None)
                self.refusing.discard(one)


async def obey(store: Store, model: Model, action: Any) -> None:
    """Do the same to the store and to the model."""
    what, *more = action
    if what == "append":
        person, kind = more
        whose = {"u": "user", "a": "visitor"}[person[0]]
        said: dict[str, Any] = {"item_id": None} if kind is EventType.SEARCH else {}
        model.happened.append(did(len(model.happened), type=kind, **{whose: person[2:]}, **said))
        what, more = "again", [0]
    if what == "again":
        number = len(model.happened) - 1 - more[0]
        if number >= 0:
            result = await store.events.append([model.happened[number]])
            told = (result.accepted, result.duplicates, result.withheld)
            assert told == model.append(number)
            assert result.conflicts == 0
    elif what == "merge":
        user, visitor, dies = more
        merger = store.merger if dies is None else dying(store.merger, dies, before=False)
        if model.link.get(f"a:{visitor}", f"u:{user}") != f"u:{user}":
            with pytest.raises(ConflictError):
                await store.merger.merge(user, visitor, now())
            return
        with contextlib.suppress(Killed):
            await merger.merge(user, visitor, now())
        model.merge(f"u:{user}", f"a:{visitor}", halfway=dies == "_seal")
    elif what == "erase":
        await store.forgetting.erase(f"u:{more[0]}", "test")
        model.forget(f"u:{more[0]}", erase=True)
    elif what == "reset":
        if more[0] not in model.link:
            await store.forgetting.forget_taste(more[0], "test")
            model.forget(more[0], erase=False)
    else:
        person, refuses = more
        choice = {"consent": {"profiling": False}} if refuses else None
        await store.people.update("preferences", person, lambda _: choice, "test")
        target = model.meet(person)
        (model.refusing.add if refuses else model.refusing.discard)(target)


async def check(url: str, actions: list[Any], folder: Path) -> None:
    store = await Store.open(url, read_timeout_s=5.0)
    await store._redis.flushall()
    model = Model()
    for action in actions:
        await obey(store, model, action)
    for visitor, user in model.link.items():
        await store.merger.merge(user[2:], visitor[2:], now())
        model.meet(visitor)
    items = [f"i{number}" for number in range(5)]
    rows = dict(zip(items, await store.catalogue.rows_of(items), strict=True))
    log = pl.DataFrame(
        [
            {
                "user_id": person[2:] if person[0] == "u" else None,
                "anonymous_id": person[2:] if person[0] == "a" else None,
                "item_id": event.item_id,
                "type": event.type.value,
                "timestamp": event.timestamp,
            }
            for person, kept in model.kept.items()
            for event in kept.values()
        ],
        schema={
            **dict.fromkeys(("user_id", "anonymous_id", "item_id", "type"), pl.String),
            "timestamp": pl.Datetime("ms", "UTC"),
        },
    )
    expected = {one.person: one for one in people_of(fact_frame(log, rows))}
    for person in PEOPLE:
        facts = expected.get(person, PersonFacts(person, EMPTY_STATE, NO_IMPRESSIONS))
        assert await store.load_state(person) == facts.state, person
        assert await store.load_impressions(person) == facts.impressions, person
    assert await store.refusing(PEOPLE) == {
        person for person in PEOPLE if model.link.get(person, person) in model.refusing
    }
    await Archiver(store.streams, EventLog(folder)).run_all()
    before = known(await snapshot(store))
    await store._redis.flushall()
    await rebuild(url, folder)
    assert known(await snapshot(store)) == before
    await store.close()


# Without making what fails shorter: each try takes a while, and the time limit of a test that falls
# into it looks like a failure that comes and goes.
@settings(max_examples=20, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(actions=ACTIONS)
@example(
    [
        ("refuse", "a:w", True),
        ("merge", "bob", "w", "_seal"),
        ("append", "u:bob", EventType.SEARCH),
        ("append", "a:w", EventType.SEARCH),
        ("append", "u:bob", EventType.SEARCH),
    ]
)
def test_any_sequence_is_what_the_model_says(
    server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory, actions: list[Any]
) -> None:
    asyncio.run(check(server.url, actions, tmp_path_factory.mktemp("log")))
