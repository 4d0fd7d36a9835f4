"""People whose every trace can be recognised: ids and values that stand nowhere else by chance."""

import json
import random
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import polars as pl

from feature_store.ingest.users import UserOptions
from recsvc.commands import importing_users
from recsvc.commands.importing import FileOptions, event_options, run_import_events
from recsvc.settings import Settings
from tests.proofs.searching import Needles
from tests.recsvc.api.service import Service

MARK = "cnry-"
KINDS = ("purchase", "view", "add_to_cart", "impression", "like", "search", "survey")
N_ITEMS = 90
EVENTS, IMPORTED = 10, 11
"""Of each person: by the API, and by a file."""
FIRST = datetime(2026, 10, 1, tzinfo=UTC)
_AT_ONCE = 4
GIVE_UP_S = 60.0

Event = dict[str, Any]


def user(number: int) -> str:
    """Return the user id of a person."""
    return f"{MARK}u{number:06d}"


def visitor(number: int) -> str:
    """Return the anonymous id under which a person came first."""
    return f"{MARK}v{number:06d}-0123456789ab"


def value(kind: str, number: int) -> str:
    """Return something that only this person has.

    ``x`` an id in another system, ``a`` an attribute, ``q`` a query, ``o`` an order, ``h`` a
    hidden brand, ``r`` a refused row.
    """
    return f"{MARK}{kind}{number:06d}"


def needles(numbers: Iterable[int]) -> Needles:
    """Return what finds every trace of some people."""
    found = []
    for number in numbers:
        # Without its end: a visitor's id that was cut is a trace too.
        found += [user(number), visitor(number)[:12]]
        found += [value(kind, number) for kind in "xaqohr"]
    return Needles(found)


def merges(number: int) -> bool:
    """Tell whether a person came as a visitor first, and signed in."""
    return number % 5 == 0


def chooses(number: int) -> bool:
    """Tell whether a person has preferences, and was recommended something."""
    return number % 4 == 1 or number % 10 == 0


def event_of(number: int, at: int) -> Event:
    """Return one event of a person, the same whoever asks."""
    rng = random.Random(f"{number} {at}")
    kind = KINDS[at % len(KINDS)]
    found: Event = {
        "event_id": f"e{number}-{at}",
        "type": kind,
        "timestamp": (FIRST + timedelta(seconds=rng.randrange(40 * 86_400))).isoformat(),
        "user_id": user(number),
        "item_id": f"i{rng.randrange(N_ITEMS):05d}",
    }
    if merges(number) and at < 4:
        found |= {"user_id": None, "anonymous_id": visitor(number)}
    elif number % 5 == 1 and at < 4:
        # Named beside the user, and nobody by itself.
        found |= {"anonymous_id": visitor(number)}
    if kind == "search":
        found |= {"item_id": None, "query": value("q", number)}
    elif kind == "survey":
        found |= {"item_id": None, "instrument": "nps", "score": rng.randrange(11)}
    elif kind == "purchase":
        found |= {"order_id": value("o", number), "channel": "web"}
    return found


class Filling:
    """Gives a shop its people.

    Parameters
    ----------
    service : Service
        Runs.
    settings : Settings
        Those that commands have.
    folder : Path
        For the files that are imported; they are the shop's own, and not searched.
    n_people : int
        How many.
    """

    def __init__(self, service: Service, settings: Settings, folder: Path, n_people: int) -> None:
        self._service, self._settings, self._folder = service, settings, folder
        self._people = range(n_people)

    def run(self, compute: Callable[[Settings, list[int]], None]) -> int:
        """Do all of it; return how many events there are."""
        self._profiles()
        n_events = self._events()
        self._merges()
        n_events += self._imports()
        self._choices()
        compute(self._settings, list(self._people))
        return n_events

    def _profiles(self) -> None:
        documents = [
            {
                "user_id": user(number),
                "attributes": {"city": "Berlin", "note": value("a", number)},
                "external_ids": {"subscriber_key": value("x", number)},
            }
            for number in self._people
        ]
        self._post("/v1/users", documents)

    def _events(self) -> int:
        events = [event_of(number, at) for at in range(EVENTS) for number in self._people]
        # Somebody else on the same device: the row is the other's, the visitor's id is not.
        for number in self._people:
            if number % 50 == 0:
                other = event_of((number + 1) % len(self._people), 100 + number)
                events.append(other | {"anonymous_id": visitor(number)})
        self._post("/v1/events", events)
        return len(events)

    def _merges(self) -> None:
        def merge(client: httpx.Client, number: int) -> None:
            body = {"anonymous_id": visitor(number)}
            ask(client, "POST", f"/v1/users/{user(number)}/merge", json=body)

        self._each(merge, [number for number in self._people if merges(number)])

    def _imports(self) -> int:
        rows = []
        for number in self._people:
            rng = random.Random(f"import {number}")
            rows += [
                {
                    "user_id": user(number),
                    "item_id": f"i{rng.randrange(N_ITEMS):05d}",
                    "timestamp": (FIRST - timedelta(hours=rng.randrange(8_000))).isoformat(),
                    "order_id": f"{value('o', number)}-{at}",
                }
                for at in range(IMPORTED)
            ]
        n_good = len(rows)
        for number in self._people:
            if number % 10 < 2:
                wrong = f"never, says {value('r', number)} of {user(number)}"
                rows.append({**rows[number], "timestamp": wrong})
        events = self._folder / "events.parquet"
        pl.DataFrame(rows).write_parquet(events)
        users = self._folder / "users.jsonl"
        taken = [
            {"user_id": user(number + 1), "external_ids": {"subscriber_key": value("x", number)}}
            for number in self._people[:-1]
            if number % 10 == 3
        ]
        users.write_text("".join(json.dumps(one) + "\n" for one in taken))
        files = [FileOptions(str(path), None, "", "UTC", "EUR", None) for path in (events, users)]
        options = event_options(
            files[0],
            default_type="purchase",
            type_given=False,
            price="unit",
            negative_quantity="refund",
            channel=None,
        )
        run_import_events(self._settings, files[0], options, as_json=True)
        importing_users.run(self._settings, files[1], UserOptions(), as_json=True)
        return n_good

    def _choices(self) -> None:
        def choose(client: httpx.Client, number: int) -> None:
            path = f"/v1/users/{user(number)}/preferences"
            hidden = {"hidden_brands": [value("h", number)], "consent": {"profiling": True}}
            ask(client, "PATCH", path, json=hidden)
            ask(client, "GET", "/v1/recommendations", params={"user_id": user(number)})

        self._each(choose, [number for number in self._people if chooses(number)])

    def _post(self, path: str, documents: list[Any]) -> None:
        def send(client: httpx.Client, start: int) -> None:
            answer = ask(client, "POST", path, json=documents[start : start + 500])
            assert not answer.json()["rejected"], answer.text[:500]

        self._each(send, list(range(0, len(documents), 500)))

    def _each(self, work: Callable[[httpx.Client, int], None], numbers: list[int]) -> None:
        each(self._service, work, numbers)


def each(service: Service, work: Callable[[httpx.Client, int], None], numbers: list[int]) -> None:
    """Do something for some numbers, by several clients at once."""

    def share(at: int) -> None:
        with service.client() as client:
            for number in numbers[at::_AT_ONCE]:
                work(client, number)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for done in [pool.submit(share, at) for at in range(_AT_ONCE)]:
            done.result()


def ask(client: httpx.Client, method: str, path: str, **more: Any) -> httpx.Response:
    """Ask until there is an answer: on a busy machine the service may say "not now"."""
    deadline_s = time.monotonic() + GIVE_UP_S
    while True:
        answer = client.request(method, path, **more)
        if answer.status_code not in (429, 503) or time.monotonic() > deadline_s:
            assert answer.status_code in (200, 202), f"{answer.status_code}: {answer.text[:500]}"
            return answer
        time.sleep(0.1)


def numbers_of(found: Iterable[str]) -> Iterator[int]:
    """Yield whose traces some strings are."""
    for text in found:
        yield int(text[len(MARK) + 1 : len(MARK) + 7])
