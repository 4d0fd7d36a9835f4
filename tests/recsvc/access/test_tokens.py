"""Customer tokens: what is accepted, and that nothing else is."""

import base64
import json
from datetime import UTC, datetime
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from feature_store.key_store import KeyRecord
from recsvc.access import tokens
from recsvc.access.auth import UnauthorizedError
from recsvc.access.tokens import (
    LEEWAY_S,
    MAX_LIFETIME_S,
    TokenVerifier,
    new_signing_key,
    signing_key_of,
    verify_key,
)
from tests.recsvc.signing import Backend

SECRET = b"s" * 32
NOW = datetime(2026, 1, 1, tzinfo=UTC)
NOW_S = NOW.timestamp()

LOGIN = Backend(SECRET)
PRIVATE, EDDSA = LOGIN.private, LOGIN.record
OLD_LOGIN = Backend(SECRET, "HS256")
SHARED, HS256 = str(OLD_LOGIN.key), OLD_LOGIN.record

GOOD: dict[str, Any] = {"sub": "ann", "aud": "recsvc", "exp": NOW_S + 600}


def token(
    claims: dict[str, Any], *, kid: str = EDDSA.key_id, key: Any = PRIVATE, algorithm: str = "EdDSA"
) -> bytes:
    return jwt.encode(claims, key, algorithm, {"kid": kid}).encode()


def verifier(*records: KeyRecord) -> TokenVerifier:
    known = records or (EDDSA, HS256)
    return TokenVerifier({record.key_id: verify_key(SECRET, record) for record in known})


def test_both_algorithms_say_for_whom_they_speak() -> None:
    for one in (token(GOOD), token(GOOD, kid=HS256.key_id, key=SHARED, algorithm="HS256")):
        checked = verifier()
        assert checked.known(one, NOW_S) is None
        principal = checked.verify(one, NOW_S)
        assert (principal.kind, principal.user_id) == ("customer", "ann")
        assert principal.scopes == {"recs:read", "events:write"}
        assert checked.known(one, NOW_S + 599) is principal
        assert checked.known(one, NOW_S + 600) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"exp": NOW_S}, "expired"),
        ({"exp": NOW_S - 1}, "expired"),
        ({"exp": NOW_S + MAX_LIFETIME_S + LEEWAY_S + 1}, "3600 s ahead at most"),
        ({"exp": "soon"}, "exp must be a number"),
        ({"exp": True}, "exp must be a number"),
        ({"exp": 1e400}, "exp must be a number"),
        ({"exp": 10**400}, "exp must be a number"),
        ({"exp": None}, "exp"),
        ({"nbf": NOW_S + LEEWAY_S + 1}, "nbf lies in the future"),
        ({"nbf": "now"}, "nbf must be a number"),
        ({"iat": NOW_S + LEEWAY_S + 1}, "iat lies in the future"),
        ({"aud": "other"}, "aud must be 'recsvc'"),
        ({"aud": ["other"]}, "aud must be 'recsvc'"),
        ({"aud": None}, "aud"),
        ({"sub": ""}, "no user id"),
        ({"sub": "."}, "no user id"),
        ({"sub": "x" * 129}, "no user id"),
        ({"sub": "a\x00b"}, "no user id"),
        ({"sub": 7}, "not valid"),
        ({"sub": None}, "sub"),
        ({"sub": "\ud800"}, "no user id"),
    ],
)
def test_claims_that_are_not_good(change: dict[str, Any], said: str) -> None:
    claims = {name: value for name, value in {**GOOD, **change}.items() if value is not None}
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=")
    head = base64.urlsafe_b64encode(
        json.dumps({"alg": "EdDSA", "kid": EDDSA.key_id}).encode()
    ).rstrip(b"=")
    signed = base64.urlsafe_b64encode(PRIVATE.sign(head + b"." + body)).rstrip(b"=")
    with pytest.raises(UnauthorizedError, match=said):
        verifier().verify(b".".join((head, body, signed)), NOW_S)


def test_clocks_may_differ_a_little() -> None:
    ahead = NOW_S + LEEWAY_S
    good = {**GOOD, "iat": ahead, "nbf": ahead, "exp": NOW_S + MAX_LIFETIME_S + LEEWAY_S}
    assert verifier().verify(token(good), NOW_S).user_id == "ann"
    assert verifier().verify(token({**GOOD, "aud": ["x", "recsvc"]}), NOW_S).user_id == "ann"


def test_the_signing_key_decides_the_algorithm_and_not_the_token() -> None:
    """The known attacks of RFC 8725, 2.1: none, and the public key as a shared secret."""
    raw = PRIVATE.public_key().public_bytes_raw()
    forged = [
        token(GOOD, key=None, algorithm="none"),
        *(token(GOOD, key=key, algorithm="HS256") for key in (raw, raw.hex(), SHARED)),
        token(GOOD, kid=HS256.key_id),
        token(GOOD, kid=HS256.key_id, key=SHARED, algorithm="HS512"),
    ]
    for one in forged:
        with pytest.raises(UnauthorizedError, match=r"are signed with (EdDSA|HS256)"):
            verifier().verify(one, NOW_S)
    others = [
        token(GOOD, key=Ed25519PrivateKey.generate()),
        token(GOOD, kid=HS256.key_id, key="x" * 64, algorithm="HS256"),
    ]
    for one in others:
        with pytest.raises(UnauthorizedError, match="not that of its signing key"):
            verifier().verify(one, NOW_S)


def test_the_token_names_a_key_that_is_good() -> None:
    with pytest.raises(UnauthorizedError, match="not known or was revoked"):
        verifier(HS256).verify(token(GOOD), NOW_S)
    deep = b'{"kid":' + b"[" * 2000 + b"]" * 500
    for header in (b'{"alg": "EdDSA"}', b'{"alg": "EdDSA", "kid": 7}', b"[]", b"{", b"\xff", deep):
        head = base64.urlsafe_b64encode(header).rstrip(b"=")
        with pytest.raises(UnauthorizedError, match=r"kid|Key ID|not a customer token"):
            signing_key_of(b".".join((head, *token(GOOD).split(b".")[1:])))
    with pytest.raises(UnauthorizedError, match="at most 4096 bytes"):
        signing_key_of(token({**GOOD, "more": "x" * 5000}))


@given(st.binary(max_size=200) | st.from_regex(rb"[\w-]{1,40}\.[\w-]{0,40}\.[\w-]{0,40}"))
def test_garbage_is_refused_in_words(garbage: bytes) -> None:
    with pytest.raises(UnauthorizedError):
        verifier().verify(garbage, NOW_S)


@given(at=st.integers(0), replacement=st.sampled_from(b"ABCxyz019_-."))
def test_every_byte_is_signed(at: int, replacement: int) -> None:
    good = token(GOOD)
    changed = bytearray(good)
    changed[at % len(good)] = replacement
    checked = verifier()
    checked.verify(good, NOW_S)
    if not says_the_same(bytes(changed), good):
        assert checked.known(bytes(changed), NOW_S) is None
        with pytest.raises(UnauthorizedError):
            checked.verify(bytes(changed), NOW_S)


def says_the_same(one: bytes, other: bytes) -> bool:
    """Tell whether two tokens differ at most in the bits that base64 pads a signature with."""
    if one.count(b".") != 2:
        return False
    *signed, signature = one.split(b".")
    *signed_too, signature_too = other.split(b".")
    if signed != signed_too:
        return False
    return base64.urlsafe_b64decode(signature + b"==") == base64.urlsafe_b64decode(
        signature_too + b"=="
    )


def test_the_shared_secret_needs_both_the_record_and_the_servers_secret() -> None:
    assert HS256.signing is not None
    assert SHARED not in HS256.model_dump_json()
    assert verify_key(SECRET, HS256).material == SHARED.encode()
    assert verify_key(b"o" * 32, HS256).material != SHARED.encode()
    again, other = new_signing_key(SECRET, "old login", NOW, algorithm="HS256")
    assert again != SHARED
    assert other.key_id != HS256.key_id


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "REMEMBERED_TOKENS", 3)
    checked = verifier()
    made = [token({**GOOD, "sub": f"user {number}"}) for number in range(5)]
    for one in made:
        checked.verify(one, NOW_S)
    assert [checked.known(one, NOW_S) is not None for one in made] == [False, False] + [True] * 3
