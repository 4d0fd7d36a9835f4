"""Customer tokens: JWTs that a shop's backend signs, so that a browser may act for one customer.

Each signing key has one algorithm, and a token is verified with the key that its ``kid`` names and
with that key's algorithm alone: what the token itself says of algorithms decides nothing (RFC 8725,
section 3.1). For EdDSA the service has the public key only. For HS256 both sides know the secret;
it is derived from the server's secret and a random salt in the record, so that neither a copy of
the store nor one of the server's secret can sign, but whoever has both can.
"""

import hmac
import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import Any, Literal

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from feature_store.errors import UserError
from feature_store.key_store import KeyRecord, SigningKey
from feature_store.schema import check_id
from recsvc.access.auth import Principal, UnauthorizedError, check_origins

AUDIENCE = "recsvc"
CUSTOMER_SCOPES = frozenset({"recs:read", "events:write"})
"""What a browser may do for the customer who has signed in, besides ``/v1/me``."""
MAX_LIFETIME_S = 3600
LEEWAY_S = 10
"""So far may the clock of whoever signs be ahead of ours."""
MAX_TOKEN_BYTES = 4096
REMEMBERED_TOKENS = 20_000
"""Some 10 MB of a worker; each further one makes it forget the oldest."""


@dataclass(frozen=True, slots=True)
class VerifyKey:
    """What tokens of one signing key are verified with.

    Parameters
    ----------
    key_id : str
        What a token calls it: ``kid``.
    name : str
        What its owner called it.
    algorithm : {"HS256", "EdDSA"}
        The only one that counts.
    material : bytes or Ed25519PublicKey
        The shared secret, or the public key.
    origins : tuple of str
        Pages that tokens may come from.
    """

    key_id: str
    name: str
    algorithm: Literal["HS256", "EdDSA"]
    material: bytes | Ed25519PublicKey
    origins: tuple[str, ...] = ()


def new_signing_key(
    secret: bytes,
    name: str,
    now: datetime,
    *,
    algorithm: str,
    public_key: bytes | None = None,
    origins: tuple[str, ...] = (),
) -> tuple[str | None, KeyRecord]:
    """Make a signing key.

    Parameters
    ----------
    secret : bytes
        The server's secret.
    name : str
        What its owner calls it.
    now : datetime
        When it is made.
    algorithm : {"EdDSA", "HS256"}
        With which tokens are signed.
    public_key : bytes or None
        For EdDSA: an Ed25519 key as PEM, as from ``openssl pkey -in KEY -pubout``.
    origins : tuple of str
        Pages that tokens may come from; none: of no page, only from apps.

    Returns
    -------
    shared : str or None
        For HS256 the secret, 64 characters of ASCII, to be shown once.
    record : KeyRecord
        To be stored; its ``key_id`` is the ``kid`` of the tokens.

    Raises
    ------
    UserError
        If the algorithm is another, the public key is missing or none, or an origin is none.
    """
    check_origins(origins)
    if algorithm == "EdDSA":
        if public_key is None:
            raise UserError("EdDSA needs the public key: --public-key FILE, an Ed25519 key as PEM")
        signing = SigningKey(algorithm="EdDSA", public_key=_raw_public_key(public_key).hex())
    elif algorithm == "HS256":
        if public_key is not None:
            raise UserError("HS256 has no public key; it is for EdDSA")
        signing = SigningKey(algorithm="HS256", salt=secrets.token_hex(32))
    else:
        raise UserError(f"the algorithm is {algorithm!r}; it can be EdDSA or HS256")
    record = KeyRecord(
        key_id=secrets.token_hex(6), name=name, origins=origins, signing=signing, created_at=now
    )
    shared = _shared_secret(secret, signing).decode() if signing.salt else None
    return shared, record


def _raw_public_key(pem: bytes) -> bytes:
    if b"PRIVATE KEY" in pem:
        raise UserError(
            "this is a private key, which nobody else should have; give the public one, as from"
            " `openssl pkey -in KEY -pubout`"
        )
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UserError("the public key is not PEM, as from `openssl pkey -pubout`") from error
    if not isinstance(key, Ed25519PublicKey):
        raise UserError(
            "the public key is not an Ed25519 key: `openssl genpkey -algorithm ed25519`"
        )
    return key.public_bytes_raw()


def _shared_secret(secret: bytes, signing: SigningKey) -> bytes:
    """Return the secret of an HS256 key: HMAC as the pseudo-random function, as in RFC 5869."""
    return hmac.digest(secret, f"signing key {signing.salt}".encode(), "sha256").hex().encode()


def verify_key(secret: bytes, record: KeyRecord) -> VerifyKey:
    """Return what tokens of a stored signing key are verified with."""
    assert record.signing is not None
    material: bytes | Ed25519PublicKey
    if record.signing.public_key is not None:
        material = Ed25519PublicKey.from_public_bytes(bytes.fromhex(record.signing.public_key))
    else:
        material = _shared_secret(secret, record.signing)
    return VerifyKey(record.key_id, record.name, record.signing.algorithm, material, record.origins)


def signing_key_of(token: bytes) -> str:
    """Return the ``kid`` of a token, which nothing vouches for yet.

    Raises
    ------
    UnauthorizedError
        If it is not a token, or names no key.
    """
    if len(token) > MAX_TOKEN_BYTES:
        raise UnauthorizedError(f"a token has at most {MAX_TOKEN_BYTES} bytes")
    try:
        key_id = jwt.get_unverified_header(token).get("kid")
    except (jwt.InvalidTokenError, ValueError, RecursionError) as error:
        raise UnauthorizedError(f"this is not a customer token: {error}") from error
    if not isinstance(key_id, str):
        raise UnauthorizedError("the token's header names no signing key: kid")
    return key_id


class TokenVerifier:
    """Verifies tokens by the signing keys that are good now, and remembers those it verified.

    A signature costs far more than finding a token again by its digest. Signing keys do not change
    here: when one is made or revoked, a new verifier takes the place of this one.

    Parameters
    ----------
    keys : mapping of str to VerifyKey
        By ``kid``.
    """

    def __init__(self, keys: Mapping[str, VerifyKey]) -> None:
        self._keys = keys
        self._verified: dict[bytes, tuple[Principal, float]] = {}

    def has(self, key_id: str) -> bool:
        """Tell whether a signing key is known and good."""
        return key_id in self._keys

    def known(self, token: bytes, now_s: float) -> Principal | None:
        """Return for whom a token that was verified before speaks; ``None`` for any other."""
        found = self._verified.get(blake2b(token, digest_size=32).digest())
        return found[0] if found is not None and now_s < found[1] else None

    def verify(self, token: bytes, now_s: float) -> Principal:
        """Return for whom a token speaks.

        Parameters
        ----------
        token : bytes
            As the request carries it.
        now_s : float
            What the time is, in seconds since 1970.

        Raises
        ------
        UnauthorizedError
            Saying what is wrong with it.
        """
        key = self._keys.get(signing_key_of(token))
        if key is None:
            raise UnauthorizedError("the token's signing key (kid) is not known or was revoked")
        claims = _claims(token, key)
        expires_s = _check_times(claims, now_s)
        try:
            user_id = check_id(claims["sub"])
        except ValueError as error:
            raise UnauthorizedError(f"the token's sub is no user id: {error}") from error
        principal = Principal(
            key.key_id, key.name, CUSTOMER_SCOPES, "customer", user_id, key.origins
        )
        if len(self._verified) >= REMEMBERED_TOKENS:
            del self._verified[next(iter(self._verified))]
        self._verified[blake2b(token, digest_size=32).digest()] = principal, expires_s
        return principal


def _claims(token: bytes, key: VerifyKey) -> dict[str, Any]:
    """Check signature, algorithm and audience."""
    # The times are checked here against a clock that is handed in.
    options: Any = {
        "require": ["exp", "aud", "sub"],
        "verify_exp": False,
        "verify_nbf": False,
        "verify_iat": False,
    }
    try:
        claims: dict[str, Any] = jwt.decode(
            token, key.material, algorithms=[key.algorithm], audience=AUDIENCE, options=options
        )
    except jwt.InvalidAlgorithmError as error:
        said = f"tokens of the signing key {key.name!r} are signed with {key.algorithm}"
        raise UnauthorizedError(said) from error
    except jwt.InvalidSignatureError as error:
        raise UnauthorizedError("the token's signature is not that of its signing key") from error
    except jwt.InvalidAudienceError as error:
        raise UnauthorizedError(f"the token's aud must be {AUDIENCE!r}") from error
    except (jwt.PyJWTError, ValueError, RecursionError) as error:
        raise UnauthorizedError(f"the token is not valid: {error}") from error
    return claims


def _check_times(claims: Mapping[str, Any], now_s: float) -> float:
    """Return when a token ends, if it is good now."""
    for name in ("exp", "nbf", "iat"):
        if not _is_time(claims.get(name, 0)):
            raise UnauthorizedError(f"the token's {name} must be a number of seconds since 1970")
    expires_s = float(claims["exp"])
    if expires_s <= now_s:
        raise UnauthorizedError("the token has expired")
    if expires_s > now_s + MAX_LIFETIME_S + LEEWAY_S:
        raise UnauthorizedError(f"the token's exp may lie {MAX_LIFETIME_S} s ahead at most")
    for name in ("nbf", "iat"):
        if claims.get(name, 0) > now_s + LEEWAY_S:
            raise UnauthorizedError(f"the token is not good yet: its {name} lies in the future")
    return expires_s


def _is_time(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    # Comparing takes any integer; converting a huge one to a float does not.
    return -math.inf < value < 1e15
