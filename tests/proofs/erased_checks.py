"""What is known of everybody, read by other means than the program's own as far as it goes."""

import time
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import redis

from feature_store.embedded import EmbeddedServer
from feature_store.state import join, unpack
from tests.proofs.searching import keys_and_values

GIVE_UP_S = 600.0
Facts = dict[tuple[int, int], tuple[int, int, int]]
"""Of row and type: how often, when first and when last, in seconds since 1970."""


def people_of(server: EmbeddedServer) -> dict[str, Any]:
    """Read what the server holds of every user: facts, and other values as bytes; and all rows."""
    client: Any = redis.Redis(unix_socket_path=str(server.socket_path))
    packed: dict[str, dict[str, bytes]] = {}
    others: dict[str, dict[str, bytes]] = {}
    for key, content in keys_and_values(client):
        kind, _, person = key.decode().partition("}:")
        if person.startswith("u:") and kind[0] in "hr":
            packed.setdefault(person[2:], {})[kind[0]] = client.get(key)
        elif person.startswith("u:") and kind[0] in "tpukm":
            others.setdefault(person[2:], {})[kind[0]] = content
        elif kind[0] == "x":
            others.setdefault(content.decode(), {})["x"] = key
    rows = {name.decode(): int(row) for name, row in client.hgetall("{cat}:ids").items()}
    client.close()
    facts: dict[str, Facts] = {}
    for person, values in packed.items():
        state = join(unpack(values.get("h")), unpack(values.get("r")))
        columns = (state.rows, state.types, state.counts, state.first_s, state.last_s)
        facts[person] = {
            (row, kind): (count, first, last)
            for row, kind, count, first, last in zip(
                *(column.tolist() for column in columns), strict=True
            )
        }
    return {"facts": facts, "others": others, "rows": rows}


def logged_events(data: Path) -> dict[str, Counter[str]]:
    """Return the ids of the events that the log has of each user."""
    found: dict[str, Counter[str]] = {}
    superseded = set()
    for path in (data / "imports").glob("compact-*/*.json"):
        superseded.update(orjson.loads(path.read_bytes())["info"]["supersedes"])
    for path in (data / "events").glob("date=*/*.parquet"):
        if f"{path.parent.name}/{path.name}" in superseded:
            continue
        table = pq.ParquetFile(path).read(["user_id", "event_id"])
        for name, event_id in zip(*(column.to_pylist() for column in table.columns), strict=True):
            if name is not None:
                found.setdefault(name, Counter())[event_id] += 1
    return found


def wait_until_archived(server: EmbeddedServer) -> None:
    """Return when no event waits in the streams."""
    client: Any = redis.Redis(unix_socket_path=str(server.socket_path))
    deadline_s = time.monotonic() + GIVE_UP_S
    while any(client.xlen(name) for name in client.scan_iter("e:*")):
        assert time.monotonic() < deadline_s
        time.sleep(0.2)
    client.close()
