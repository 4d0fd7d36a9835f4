"""``recsvc keys``: public keys and signing keys, a real store, no secret in any list."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from feature_store.embedded import EmbeddedServer
from tests.recsvc.commandline import Cli, cli, is_one_clear_line, shop

__all__ = ["cli", "shop"]

PAGE = "https://shop.example"


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    file = tmp_path / "login.pem"
    public = Ed25519PrivateKey.generate().public_key()
    file.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return file


def test_a_public_key_is_bound_to_its_pages(cli: Cli, shop: EmbeddedServer) -> None:
    made = cli(
        "keys", "create", "--name", "page", "--public", "--origin", PAGE,
        "--origin", "http://localhost:3000",
    )  # fmt: skip
    assert re.fullmatch(r"pk_[\w-]{43}\n", made.stdout)
    (listed,) = json.loads(cli("keys", "list", "--json").stdout)["keys"]
    assert (listed["kind"], listed["algorithm"]) == ("public", None)
    assert listed["origins"] == [PAGE, "http://localhost:3000"]
    assert listed["scopes"] == ["events:write", "recs:read"]
    shown = cli("keys", "list").stdout
    assert "public" in shown
    assert PAGE in shown


def test_signing_keys_and_what_is_shown_of_them(cli: Cli, shop: EmbeddedServer, pem: Path) -> None:
    made = cli(
        "keys", "create", "--name", "login", "--signing", "--public-key", pem, "--origin", PAGE
    )
    assert re.fullmatch(r"[0-9a-f]{12}\n", made.stdout), "the kid"
    assert "alg=EdDSA" in made.stderr
    shared = cli("keys", "create", "--name", "old", "--signing", "--algorithm", "HS256")
    assert re.fullmatch(r"[0-9a-f]{64}\n", shared.stdout)
    assert "not shown again" in shared.stderr
    listed = json.loads(cli("keys", "list", "--json").stdout)["keys"]
    assert [(key["kind"], key["algorithm"]) for key in listed] == [
        ("signing", "EdDSA"),
        ("signing", "HS256"),
    ]
    assert listed[0]["key_id"] == made.stdout.strip()
    assert not {"digest", "salt", "signing"} & set(listed[1])
    assert shared.stdout.strip() not in json.dumps(listed)
    whole = json.loads(
        cli("keys", "create", "--name", "x", "--signing", "--algorithm", "HS256", "--json").stdout
    )
    header = {"kid": whole["key_id"]}
    assert jwt.encode({"exp": datetime.now(UTC)}, whole["key"], "HS256", header)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--public", "bound to the pages.*--origin https://shop.example"),
        ("--public --origin shop.example", "'shop.example' is not an origin; write it"),
        ("--public --origin https://shop.example/", "is not an origin"),
        ("--public --origin https://shop.example/cart", "is not an origin"),
        ("--public --origin https://*.shop.example", "is not an origin"),
        ("--public --origin https://Shop.example", "is not an origin"),
        ("--public --origin https://shop.example:443", "the usual port"),
        ("--public --origin *", "is not an origin"),
        ("--public --origin null", "is not an origin"),
        ("--public --origin https://shop.example --scope users:read", "anybody can read"),
        ("--public --origin https://shop.example --scope all", "anybody can read"),
        ("--scope recs:read --origin https://shop.example", "only public keys and signing keys"),
        ("", "a key needs a scope"),
        ("--signing", "EdDSA needs the public key"),
        ("--signing --algorithm RS256", "'RS256'; it can be EdDSA or HS256"),
        ("--signing --algorithm none", "'none'; it can be EdDSA or HS256"),
        ("--signing --algorithm HS256 --scope recs:read", "neither public nor has scopes"),
        ("--signing --public --algorithm HS256", "neither public nor has scopes"),
        ("--algorithm HS256 --scope recs:read", "are for --signing"),
        ("--signing --public-key nowhere.pem", "nowhere.pem cannot be read"),
        ("--signing --public-key pyproject.toml", "is not PEM"),
        ("--signing --algorithm HS256 --origin shop.example", "is not an origin"),
    ],
)
def test_nonsense_is_refused_by_name(
    cli: Cli, shop: EmbeddedServer, arguments: str, message: str
) -> None:
    done = cli("keys", "create", "--name", "x", *arguments.split())
    is_one_clear_line(done, 2, message)
    assert json.loads(cli("keys", "list", "--json").stdout)["keys"] == []


def test_a_private_key_and_keys_of_other_curves_are_refused(
    cli: Cli, shop: EmbeddedServer, tmp_path: Path
) -> None:
    private = Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    other = X25519PrivateKey.generate().public_key()
    file = tmp_path / "key.pem"
    for content, message in (
        (private, "this is a private key"),
        (other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), "not an Ed25519 key"),
    ):
        file.write_bytes(content)
        done = cli("keys", "create", "--name", "x", "--signing", "--public-key", file)
        is_one_clear_line(done, 2, message)
