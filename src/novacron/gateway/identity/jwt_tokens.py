"""JSON Web Tokens: signed by whoever we share a secret with, or whose public keys we know.

The algorithm of a token chooses between the secret and the public keys, never what a key is used
for: the secret is for HS256 alone, and each public key for the algorithms of its type. Headers that
bring a key or an address of one are refused, unread.
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import blake3
import jwt

from novacron.errors import Unauthenticated
from novacron.gateway.identity.claims import ClaimNames, principal_of_claims
from novacron.gateway.identity.permissions import Roles
from novacron.gateway.identity.principal import Principal
from novacron.gateway.identity.public_keys import PublicKey
from novacron.gateway.identity.remote_keys import RemoteKeys

MOST_BYTES: Final = 8 * 1024
_MOST_REMEMBERED: Final = 10_000
_REMEMBERED_S: Final = 60.0  # then its key is looked up again: it may have been taken back
_MOST_KID: Final = 256
_FORBIDDEN_HEADERS: Final = frozenset({"jwk", "jku", "x5u", "x5c", "crit", "zip", "b64"})
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/at+jwt"})
_REASONS: Final[tuple[tuple[type[jwt.PyJWTError], str], ...]] = (
    (jwt.ExpiredSignatureError, "has expired"),
    (jwt.ImmatureSignatureError, "is not valid yet"),
    (jwt.InvalidAudienceError, "is for another audience"),
    (jwt.InvalidIssuerError, "is of another issuer"),
    (jwt.MissingRequiredClaimError, "lacks a claim that is required: exp, and iss and aud if set"),
)


@dataclass(frozen=True, kw_only=True)
class JwtRules:
    """What a token must be. `secret` is for HS256; empty: no such tokens. Empty `issuer` and
    `audience`: any, which only tokens of a shared secret may have."""

    secret: str = field(default="", repr=False)
    issuer: str = ""
    audience: tuple[str, ...] = ()
    leeway_s: float = 30.0
    claims: ClaimNames = field(default_factory=ClaimNames)


@dataclass(frozen=True, slots=True)
class _Known:
    principal: Principal
    until_s: float


class JwtTokens:
    """Authenticates tokens by `rules` and, unless None, `keys`."""

    def __init__(
        self,
        rules: JwtRules,
        keys: RemoteKeys[PublicKey] | None,
        *,
        roles: Roles,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._rules = rules
        self._keys = keys
        self._roles = roles
        self._clock = clock
        self._digest_key = secrets.token_bytes(32)
        self._known: OrderedDict[bytes, _Known] = OrderedDict()

    async def authenticate(self, token: bytes) -> Principal | None:
        if token.count(b".") != 2:
            return None
        if len(token) > MOST_BYTES:
            raise _refused(f"has more than {MOST_BYTES} bytes")
        digest = blake3.blake3(token, key=self._digest_key).digest()
        known = self._known.get(digest)
        if known is not None and self._clock() < known.until_s:
            return known.principal
        self._known.pop(digest, None)
        claims = await self._verified(token)
        principal = principal_of_claims(claims, self._rules.claims, self._roles)
        until_s = min(self._clock() + _REMEMBERED_S, claims["exp"] + self._rules.leeway_s)
        self._known[digest] = _Known(principal, until_s)
        if len(self._known) > _MOST_REMEMBERED:
            self._known.popitem(last=False)
        return principal

    def forget(self, key_id: str) -> None:
        """Tokens are not revoked one by one: they expire."""

    async def _verified(self, token: bytes) -> dict[str, Any]:
        try:
            header = jwt.get_unverified_header(token)
            algorithm = _algorithm(header)
            key = await self._key(header, algorithm)
            return self._decode(token, key, algorithm)
        except jwt.PyJWTError as error:
            raise _refused(_reason(error)) from error
        except (ValueError, TypeError, RecursionError) as error:  # claims of impossible types
            raise _refused("cannot be read") from error

    async def _key(self, header: dict[str, Any], algorithm: str) -> Any:
        if algorithm == "HS256" and self._rules.secret:
            return self._rules.secret
        if self._keys is None or algorithm.startswith("HS"):
            raise _refused("is signed in a way that is not accepted here")
        kid = header.get("kid")
        if not isinstance(kid, str) or not 0 < len(kid) <= _MOST_KID:
            raise _refused("does not name its key (kid)")
        found = await self._keys.find(kid)
        if found is None:
            raise _refused("is signed with a key that is not known")
        if algorithm not in found.algorithms:
            raise _refused("is signed in a way that its key is not for")
        return found.key

    def _decode(self, token: bytes, key: Any, algorithm: str) -> dict[str, Any]:
        rules = self._rules
        required = ["exp", *(["iss"] if rules.issuer else []), *(["aud"] if rules.audience else [])]
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            audience=rules.audience or None,
            issuer=rules.issuer or None,
            leeway=rules.leeway_s,
            options={"require": required},
        )
        return claims


def _algorithm(header: dict[str, Any]) -> str:
    if not _FORBIDDEN_HEADERS.isdisjoint(header):
        raise _refused("brings a key, or a header that is not understood here")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise _refused("is none for calling (typ)")
    algorithm = header.get("alg")
    if not isinstance(algorithm, str):
        raise _refused("does not name its algorithm (alg)")
    return algorithm


def _reason(error: jwt.PyJWTError) -> str:
    return next((text for kind, text in _REASONS if isinstance(error, kind)), "is not valid")


def _refused(reason: str) -> Unauthenticated:
    return Unauthenticated(f"The token {reason}.", was_sent=True)
