"""The public keys of a JSON Web Key Set, each with the algorithms that it may be used with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.exceptions import InvalidKeyError

_RSA: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVES: Final = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
_LEAST_RSA_BITS: Final = 2048
_MOST_KEYS: Final = 100


@dataclass(frozen=True)
class PublicKey:
    """`key` is an object of `cryptography`."""

    key: RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey
    algorithms: frozenset[str]


def public_keys(document: object) -> dict[str, PublicKey]:
    """The keys of a set that verify signatures, by `kid`. Raises ValueError if it is no such set.

    Left out: keys without a `kid`, symmetric and private ones, those for encryption, too short
    ones, and what nobody here knows. Of two with one `kid` the first counts.
    """
    entries = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(entries, list):
        raise ValueError("it is no JSON object with a list of keys")
    found: dict[str, PublicKey] = {}
    for entry in entries[:_MOST_KEYS]:
        if isinstance(entry, dict) and isinstance(kid := entry.get("kid"), str):
            key = _public_key(entry)
            if key is not None:
                found.setdefault(kid, key)
    return found


def _public_key(entry: dict[str, Any]) -> PublicKey | None:
    operations = entry.get("key_ops", ["verify"])
    is_for_signatures = entry.get("use", "sig") == "sig" and "verify" in operations
    if "d" in entry or "k" in entry or not is_for_signatures:
        return None
    try:
        key, algorithms = _read(entry)
    except (InvalidKeyError, ValueError, TypeError, KeyError):
        return None
    if "alg" in entry:
        algorithms &= {entry["alg"]}
    return PublicKey(key, algorithms) if key is not None and algorithms else None


def _read(entry: dict[str, Any]) -> tuple[Any, frozenset[str]]:
    match entry.get("kty"):
        case "RSA":
            key = RSAAlgorithm.from_jwk(entry)
            is_long = isinstance(key, RSAPublicKey) and key.key_size >= _LEAST_RSA_BITS
            return (key if is_long else None), _RSA
        case "EC":
            return ECAlgorithm.from_jwk(entry), frozenset({_CURVES[entry["crv"]]})
        case "OKP" if entry.get("crv") == "Ed25519":
            return OKPAlgorithm.from_jwk(entry), frozenset({"EdDSA"})
    return None, frozenset()
