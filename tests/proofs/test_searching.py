"""The search finds what was planted, wherever it may stand and however it may be written."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import polars as pl
import pyarrow as pa
import pytest
import redis

from feature_store.embedded import EmbeddedServer
from tests.proofs.searching import Needles, search_folder, search_server, unescaped

CANARY = 'cnry-é/"日%-0001'
OTHER = "cnry-other-0002"
NEEDLES = Needles([CANARY, OTHER])
LONG = 'so that a line of text is longer than what is compressed in a dump {"user_id": ""} ' * 5


def _table(path: Path, compression: Literal["zstd", "snappy"] = "zstd") -> None:
    frame = pl.DataFrame({"user_id": ["a", CANARY, "b"], "n": [1, 2, 3]})
    frame.write_parquet(path, row_group_size=1, compression=compression)


def _nested(path: Path) -> None:
    rows = {"a": [[{"who": ["x", CANARY]}]], "kind": ["k"]}
    pl.DataFrame(rows).with_columns(pl.col("kind").cast(pl.Categorical)).write_parquet(path)


def _categorical(path: Path) -> None:
    frame = pl.DataFrame({"user_id": ["a", CANARY]})
    frame.with_columns(pl.col("user_id").cast(pl.Categorical)).write_parquet(path)


def _compressed(path: Path, kind: str) -> None:
    with pa.output_stream(path, compression=kind) as stream:
        stream.write(b"x" * 100_000 + CANARY.encode())


def _across_parts(path: Path) -> None:
    path.write_bytes(b"x" * ((8 << 20) - 5) + json.dumps(CANARY).encode() + b"x" * 100)


PLACES: dict[str, Callable[[Path], object]] = {
    "plain.log": lambda path: path.write_text(f"user {CANARY} came"),
    "binary.bin": lambda path: path.write_bytes(b"\x00\xff" + CANARY.encode() + b"\xfe"),
    "escaped.json": lambda path: path.write_text(json.dumps({"id": CANARY})),
    "percent.log": lambda path: path.write_text(f"GET /v1/users/{quote(CANARY, safe='')}/x"),
    "escaped in part.log": lambda path: path.write_text(quote(CANARY, safe="%/")),
    "zstd.parquet": _table,
    "snappy.parquet": lambda path: _table(path, compression="snappy"),
    "nested.parquet": _nested,
    "categorical.parquet": _categorical,
    "text.gz": lambda path: path.write_bytes(gzip.compress(LONG.encode() + CANARY.encode())),
    "text.zst": lambda path: _compressed(path, "zstd"),
    "text.lz4": lambda path: _compressed(path, "lz4"),
    "across.json": _across_parts,
}


@pytest.mark.parametrize("name", PLACES)
def test_a_string_is_found_in_a_file(tmp_path: Path, name: str) -> None:
    PLACES[name](tmp_path / name)
    assert [place.where for place in search_folder(tmp_path, NEEDLES)] == [name]
    assert {place.needle for place in search_folder(tmp_path, NEEDLES)} == {CANARY}
    assert search_folder(tmp_path, Needles(["cnry-nobody", "cnry-none"])) == []


def test_a_string_is_found_in_names(tmp_path: Path) -> None:
    folder = tmp_path / quote(CANARY, safe="")
    folder.mkdir()
    (folder / OTHER).write_text("")
    found = {place.needle for place in search_folder(tmp_path, NEEDLES)}
    assert found == {CANARY, OTHER}


def test_a_string_is_found_on_a_server_and_in_its_files(tmp_path: Path) -> None:
    """In keys and values of every type; in the append-only file; in a dump that compresses it."""
    with EmbeddedServer(tmp_path, fsync="always") as server:
        client = redis.Redis(unix_socket_path=str(server.socket_path))
        canary = LONG + CANARY
        client.set(f"h:{CANARY}", "v")
        client.set("string", canary)
        client.hset("hash", "field", canary)
        client.hset("hash of names", CANARY, "v")
        client.sadd("set", canary)
        client.zadd("sorted set", {canary: 1.0})
        client.rpush("list", "a", canary)
        client.xadd("stream", {"e": json.dumps({"user_id": CANARY})})
        kinds = ("string", "hash", "hash of names", "set", "sorted set", "list", "stream")
        wanted = {f"key h:{CANARY}", *(f"value of {kind}" for kind in kinds)}
        assert {place.where for place in search_server(client, NEEDLES)} == wanted
        files = {place.where for place in search_folder(tmp_path, NEEDLES)}
        assert any(name.endswith(".aof") for name in files)
        client.bgrewriteaof()
        while client.info("persistence")["aof_rewrite_in_progress"]:
            pass
        client.delete(f"h:{CANARY}", *kinds)
        client.set("compressed only", ("cnry-other-000" * 40) + CANARY)
        client.delete("compressed only")
        assert search_server(client, NEEDLES) == []
        # Deleted from the server, it still stands in the file that the rewriting has made.
        found = [one for one in search_folder(tmp_path, NEEDLES) if one.where.endswith(".rdb")]
        assert {place.needle for place in found} == {CANARY}
        client.close()


def test_a_string_that_only_a_dump_hides_is_found(tmp_path: Path) -> None:
    """Text that repeats is compressed: the bytes of the file do not hold it whole."""
    secret = "cnry-" + "abcdefgh" * 40
    needles = Needles([secret, OTHER])
    with EmbeddedServer(tmp_path / "server") as server:
        client = redis.Redis(unix_socket_path=str(server.socket_path))
        client.set("k", secret)
        client.save()
        client.close()
        (dump,) = (tmp_path / "server" / "valkey").glob("dump.rdb")
        assert needles.plain(dump.read_bytes()) == set()
        assert "valkey/dump.rdb" in {
            place.where for place in search_folder(tmp_path / "server", needles)
        }


def test_many_strings_cost_no_more_than_one() -> None:
    needles = Needles([f"cnry-{number:06d}" for number in range(10_000)])
    data = b" ".join(b"cnry-%06d" % number for number in range(9_999, 20_000))
    assert needles.plain(data) == {"cnry-009999"}
    assert needles.plain(b"cnry-000001cnry-000002x") == {"cnry-000001", "cnry-000002"}


def test_escapes_are_undone() -> None:
    text = 'é日😀"\\/'
    assert unescaped(json.dumps(text).encode())[1:-1] == text.encode()
