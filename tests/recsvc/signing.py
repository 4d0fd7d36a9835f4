"""A shop's backend that signs customer tokens, with either algorithm."""

import time
from datetime import UTC, datetime
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from feature_store.key_store import KeyRecord
from recsvc.access.tokens import new_signing_key


class Backend:
    """Signs with one key of its own.

    Parameters
    ----------
    secret : bytes
        The service's.
    algorithm : {"EdDSA", "HS256"}
        How it signs.
    origins : tuple of str
        Pages that its tokens are for.
    """

    def __init__(
        self, secret: bytes, algorithm: str = "EdDSA", origins: tuple[str, ...] = ()
    ) -> None:
        self.private = Ed25519PrivateKey.generate()
        public = self.private.public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )
        shared, self.record = new_signing_key(
            secret,
            f"login by {algorithm}",
            datetime.now(UTC),
            algorithm=algorithm,
            public_key=public if algorithm == "EdDSA" else None,
            origins=origins,
        )
        self.algorithm = algorithm
        self.key: Any = shared or self.private

    def revoked(self) -> KeyRecord:
        """Return the record of its key as one that is good no more."""
        return self.record.model_copy(update={"revoked_at": datetime.now(UTC)})

    def sign(self, claims: dict[str, Any], **header: Any) -> bytes:
        """Return a token with these claims."""
        head = {"kid": self.record.key_id, **header}
        return jwt.encode(claims, self.key, self.algorithm, head).encode()

    def token(self, user_id: str, lifetime_s: float = 600, **claims: Any) -> str:
        """Return a token that lets a browser act for a customer from now on."""
        expires_s = time.time() + lifetime_s
        return self.sign({"sub": user_id, "aud": "recsvc", "exp": expires_s, **claims}).decode()
