"""What authentication adds to a request, in microseconds, by kind of credential.

    python benchmarks/identity_cost.py

Requests go through the middleware and the check of the route to an application that does nothing,
in one thread and without sockets. "first" is a credential that was not seen before: an argon2 hash,
or a signature. Rounds take turns, so that a busy moment of the machine meets all kinds.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from starlette.types import ASGIApp, Receive, Scope, Send

from novacron.gateway.auth import Authentication
from novacron.gateway.identity.configured_keys import ConfiguredKeys
from novacron.gateway.identity.first_key import FirstKey, FirstKeyDirectory
from novacron.gateway.identity.jwt_tokens import JwtRules, JwtTokens
from novacron.gateway.identity.key_format import new_key
from novacron.gateway.identity.key_hash import hash_key, is_key_of
from novacron.gateway.identity.permissions import BUILT_IN, MODELS_READ
from novacron.gateway.identity.principal import Authenticator
from novacron.gateway.identity.public_keys import PublicKey, public_keys
from novacron.gateway.identity.remote_keys import RemoteKeys
from novacron.gateway.identity.route_permissions import RequirePermission
from novacron.gateway.identity.stored_keys import StoredKeys

_ROUNDS, _REQUESTS = 40, 500
_SECRET = "a secret of at least thirty-two bytes"
Made = tuple[Authenticator, bytes, Callable[[], None]]
"""Who knows the credential, the credential, and what makes the next request with it a first one."""


async def nothing(scope: Scope, receive: Receive, send: Send) -> None: ...


async def no_message() -> MutableMapping[str, Any]:
    raise AssertionError("nobody reads")


async def to_nobody(message: MutableMapping[str, Any]) -> None:
    raise AssertionError(message)


def scope_with(token: bytes) -> Scope:
    """A request as clients send it: the credential is not the only header."""
    headers = [
        (b"host", b"127.0.0.1:8080"),
        (b"accept", b"application/json"),
        (b"accept-encoding", b"gzip, deflate"),
        (b"content-type", b"application/json"),
        (b"user-agent", b"OpenAI/Python 3.52.0"),
        (b"content-length", b"120"),
        (b"authorization", b"Bearer " + token),
    ]
    return {"type": "http", "method": "GET", "path": "/v1/models", "headers": headers}


def guarded(authenticator: Authenticator) -> ASGIApp:
    return Authentication(RequirePermission(nothing, {"GET": MODELS_READ}), authenticator)


def configured() -> Made:
    keys = tuple(f"sk-{number}" for number in range(20))
    return ConfiguredKeys(keys), keys[-1].encode(), lambda: None


def stored() -> Made:
    key = new_key()
    kept = FirstKey(prefix=key.prefix, hash=hash_key(key.text), created_at=0)
    directory = FirstKeyDirectory(kept, alone=True)
    keys = StoredKeys(directory, is_key_of, roles=BUILT_IN)
    return keys, key.text.encode(), lambda: keys.forget(kept.id)


class Clock:
    """Goes ahead, so that tokens are not remembered any more."""

    def __init__(self) -> None:
        self._ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self._ahead_s

    def jump(self) -> None:
        self._ahead_s += 100.0


def shared_secret() -> Made:
    token, clock = jwt.encode(_claims(), _SECRET, "HS256"), Clock()
    tokens = JwtTokens(JwtRules(secret=_SECRET), None, roles=BUILT_IN, clock=clock)
    return tokens, token.encode(), clock.jump


def public_key(algorithm: str) -> Made:
    if algorithm == "RS256":
        key: Any = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        entry = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    else:
        key = ec.generate_private_key(ec.SECP256R1())
        entry = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)

    async def fetch() -> Mapping[str, PublicKey]:
        return public_keys({"keys": [{**entry, "kid": "k"}]})

    token = jwt.encode({**_claims(), "aud": "us"}, key, algorithm, {"kid": "k"})
    rules = JwtRules(issuer="issuer", audience=("us",))
    clock = Clock()
    tokens = JwtTokens(rules, RemoteKeys(fetch), roles=BUILT_IN, clock=clock)
    return tokens, token.encode(), clock.jump


def _claims() -> dict[str, object]:
    named = {"iss": "issuer", "sub": "ann", "tenant_id": "acme", "role": "user"}
    return {**named, "exp": time.time() + 36_000}


async def microseconds(app: ASGIApp, scope: Scope, times: int) -> float:
    start_s = time.perf_counter()
    for _ in range(times):
        await app(dict(scope), no_message, to_nobody)
    return (time.perf_counter() - start_s) / times * 1e6


KINDS: Mapping[str, Made] = {
    "configured key (of 20)": configured(),
    "stored key": stored(),
    "token, HS256": shared_secret(),
    "token, RS256": public_key("RS256"),
    "token, ES256": public_key("ES256"),
}


async def main() -> None:
    apps = {name: (guarded(who), scope_with(token)) for name, (who, token, _) in KINDS.items()}
    apps["open server"] = (nothing, scope_with(b"none"))
    each_us: dict[str, list[float]] = {name: [] for name in apps}
    first_us: dict[str, list[float]] = {name: [] for name in apps}
    for app, scope in apps.values():
        await microseconds(app, scope, _REQUESTS)
    for _ in range(_ROUNDS):
        for name, (app, scope) in apps.items():
            each_us[name].append(await microseconds(app, scope, _REQUESTS))
            if name in KINDS:
                KINDS[name][2]()
            first_us[name].append(await microseconds(app, scope, 1))
    base_us = statistics.median(each_us["open server"])
    print(f"{'credential':24} {'each us':>8} {'first us':>9}")
    for name in KINDS:
        each = statistics.median(each_us[name]) - base_us
        print(f"{name:24} {each:8.2f} {statistics.median(first_us[name]):9.0f}")


if __name__ == "__main__":
    asyncio.run(main())
