"""``recsvc segments``: list them, show one, write the ids of its members."""

import sys
from typing import Any

import orjson

from feature_store.errors import NotFoundError
from feature_store.schema import format_time
from feature_store.store import Store
from recsvc.commands.output import note, say, stdout, table, write_json
from recsvc.commands.session import with_store
from recsvc.merchandising.audiences import Counts, count_members, members_of
from recsvc.merchandising.segments import Segment, read_segments
from recsvc.settings import Settings


def show_list(settings: Settings, *, as_json: bool) -> None:
    """List the segments with the number of their members."""

    async def read(store: Store) -> tuple[dict[str, Segment], Counts]:
        segments = read_segments(await store.documents.snapshot())
        return segments, await count_members(store, segments)

    segments, counts = with_store(settings, read)
    if as_json:
        found = [_document(segments[name], counts) for name in sorted(segments)]
        write_json({"segments": found, "n_users": counts.n_users})
        return
    shown = table("id", "users>", "name", "built in")
    for name in sorted(segments):
        segment = segments[name]
        built_in = "yes" if segment.built_in else ""
        shown.add_row(name, f"{counts.members[name]:,}", segment.body.name, built_in)
    stdout().print(shown)
    note(f"of {counts.n_users:,} users with a profile, preferences or computed values")


def show(settings: Settings, segment_id: str, *, as_json: bool) -> None:
    """Show one segment."""

    async def read(store: Store) -> tuple[Segment, Counts]:
        segment = await _segment(store, segment_id)
        return segment, await count_members(store, {segment_id: segment})

    segment, counts = with_store(settings, read)
    document = _document(segment, counts)
    if as_json:
        write_json(document)
        return
    say(f"{segment_id}: {segment.body.name}")
    if segment.body.description:
        say(segment.body.description)
    say(orjson.dumps(segment.body.when, option=orjson.OPT_INDENT_2).decode())
    say(f"{document['count']:,} of {counts.n_users:,} users")


def write_members(settings: Settings, segment_id: str) -> None:
    """Write the members as they are found."""

    async def write(store: Store) -> int:
        n_members = 0
        async for found in members_of(store, await _segment(store, segment_id)):
            sys.stdout.write("".join(f"{user_id}\n" for user_id in found))
            n_members += len(found)
        sys.stdout.flush()
        return n_members

    note(f"{with_store(settings, write):,} members")


async def _segment(store: Store, segment_id: str) -> Segment:
    found = read_segments(await store.documents.snapshot()).get(segment_id)
    if found is None:
        raise NotFoundError(f"there is no segment {segment_id!r}; `recsvc segments list` has all")
    return found


def _document(segment: Segment, counts: Counts) -> dict[str, Any]:
    return {
        "segment_id": segment.segment_id,
        **segment.body.model_dump(mode="json"),
        "built_in": segment.built_in,
        "count": counts.members[segment.segment_id],
        "as_of": format_time(counts.as_of),
    }
