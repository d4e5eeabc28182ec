"""Tokens of a shared secret and of public keys are let in, and nothing that pretends to be one."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from novacron.errors import Unauthenticated
from novacron.gateway.identity.claims import ClaimNames
from novacron.gateway.identity.jwt_tokens import MOST_BYTES, JwtRules, JwtTokens
from novacron.gateway.identity.permissions import BUILT_IN
from novacron.gateway.identity.public_keys import PublicKey, public_keys
from novacron.gateway.identity.remote_keys import RemoteKeys

NOW = 1_800_000_000
SECRET = "a secret of at least sixty-four bytes, as HS512 wants it, though it is refused"
ISSUER, AUDIENCE = "https://issuer.example", "novacron"

RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
RSA_PEM = RSA_KEY.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)


def jwk(key: Any, kid: str, **fields: object) -> dict[str, Any]:
    kind = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
    return {**kind.to_jwk(key.public_key(), as_dict=True), "kid": kid, **fields}


KEY_SET = {"keys": [jwk(RSA_KEY, "rsa-1", alg="RS256", use="sig"), jwk(EC_KEY, "ec-1")]}


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyJWT asks datetime, which cannot be patched: only for the library's clock."""

    class Frozen(jwt.api_jwt.datetime):  # type: ignore[misc]
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return cls.fromtimestamp(NOW, tz)

    monkeypatch.setattr(jwt.api_jwt, "datetime", Frozen)


def tokens(rules: JwtRules | None = None, key_set: object = KEY_SET) -> JwtTokens:
    async def fetch() -> Mapping[str, PublicKey]:
        return public_keys(key_set)

    both = JwtRules(secret=SECRET, issuer=ISSUER, audience=(AUDIENCE,))
    return JwtTokens(rules or both, RemoteKeys(fetch), roles=BUILT_IN, clock=lambda: NOW)


def claims(**fields: object) -> dict[str, object]:
    made = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "exp": NOW + 60,
        "user_id": "ann",
        "tenant_id": "acme",
        "role": "user",
        **fields,
    }
    return {name: value for name, value in made.items() if value is not None}


def signed(
    key: Any = RSA_KEY, algorithm: str = "RS256", headers: object = None, **fields: object
) -> bytes:
    head = {"kid": "rsa-1"} if headers is None else headers
    return jwt.encode(claims(**fields), key, algorithm, head).encode()  # type: ignore[arg-type]


def forged(header: object, payload: object, signature: bytes = b"") -> bytes:
    """Any three parts: libraries do not write what attackers do."""
    parts = [
        part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, payload)
    ]
    return b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in (*parts, signature))


def hs256(header: object, payload: object, key: bytes) -> bytes:
    body = forged(header, payload).rstrip(b".")
    mac = hmac.new(key, body, hashlib.sha256).digest()
    return body + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")


@pytest.mark.parametrize(
    "token",
    [
        signed(),
        signed(EC_KEY, "ES256", {"kid": "ec-1"}),
        signed(SECRET, "HS256", {}),
        signed(SECRET, "HS256", {"kid": "whatever"}),
        signed(headers={"kid": "rsa-1", "typ": "at+jwt"}),
        signed(aud=["other", AUDIENCE]),
        signed(exp=NOW - 29),
        signed(nbf=NOW + 29, iat=NOW + 29),
    ],
)
async def test_a_good_token_is_let_in(token: bytes) -> None:
    principal = await tokens().authenticate(token)
    assert principal is not None
    assert (principal.tenant_id, principal.user_id, principal.roles) == ("acme", "ann", ("user",))
    assert principal.permissions == BUILT_IN.permissions_of(("user",))


GOOD_HEADER = {"alg": "HS256", "typ": "JWT"}
SECRET_BYTES = SECRET.encode()

ATTACKS = {
    "alg none": forged({"alg": "none", "typ": "JWT"}, claims()),
    "alg none with a kid": forged({"alg": "None", "kid": "rsa-1"}, claims()),
    "alg none, signature kept": forged({"alg": "nOnE"}, claims(), b"x" * 32),
    "no alg": forged({"typ": "JWT"}, claims(), b"x"),
    "alg is no text": forged({"alg": ["HS256"]}, claims(), b"x"),
    "unknown alg": forged({"alg": "XX256", "kid": "rsa-1"}, claims(), b"x"),
    "public key as secret": hs256({"alg": "HS256", "kid": "rsa-1"}, claims(), RSA_PEM),
    "public key as secret, no newline": hs256(GOOD_HEADER, claims(), RSA_PEM.strip()),
    "empty secret": hs256(GOOD_HEADER, claims(), b""),
    "HS512 with the secret": signed(SECRET, "HS512", {}),
    "another secret": signed(SECRET + "!", "HS256", {}),
    "another key under the kid": signed(OTHER_RSA),
    "RS512 where the key says RS256": signed(RSA_KEY, "RS512"),
    "PS256 where the key says RS256": signed(RSA_KEY, "PS256"),
    "EC token under the RSA key": signed(EC_KEY, "ES256", {"kid": "rsa-1"}),
    "RSA token under the EC key": signed(RSA_KEY, "RS256", {"kid": "ec-1"}),
    "no kid": signed(headers={}),
    "empty kid": signed(headers={"kid": ""}),
    "unknown kid": signed(OTHER_RSA, headers={"kid": "rsa-2"}),
    "kid is a path": signed(OTHER_RSA, headers={"kid": "../../../../dev/null"}),
    "kid is a path, signed with what is there": hs256(
        {"alg": "HS256", "kid": "/dev/null"}, claims(), b"\0"
    ),
    "kid is an address": signed(OTHER_RSA, headers={"kid": "https://evil.example/jwks.json"}),
    "kid injects": signed(OTHER_RSA, headers={"kid": "x' UNION SELECT 'key' --"}),
    "kid is long": signed(headers={"kid": "rsa-1" + " " * 300}),
    "kid is no text": forged({"alg": "RS256", "kid": 1}, claims(), b"x"),
    "kid is a list": forged({"alg": "RS256", "kid": ["rsa-1"]}, claims(), b"x"),
    "jwk": signed(OTHER_RSA, headers={"kid": "rsa-1", "jwk": jwk(OTHER_RSA, "rsa-1")}),
    "jku": signed(OTHER_RSA, headers={"kid": "rsa-1", "jku": "http://169.254.169.254/keys"}),
    "jku in a well signed one": signed(headers={"kid": "rsa-1", "jku": "https://evil.example"}),
    "x5u": signed(headers={"kid": "rsa-1", "x5u": "https://evil.example"}),
    "x5c": signed(headers={"kid": "rsa-1", "x5c": ["MIIB"]}),
    "crit": signed(headers={"kid": "rsa-1", "crit": ["exp"]}),
    "logout token": signed(headers={"kid": "rsa-1", "typ": "logout+jwt"}),
    "typ is no text": signed(headers={"kid": "rsa-1", "typ": 5}),
    "expired": signed(exp=NOW - 31),
    "no exp": signed(exp=None),
    "exp is text": forged(GOOD_HEADER, claims(exp="never"), b"x"),
    "exp is text, well signed": hs256(GOOD_HEADER, claims(exp="never"), SECRET_BYTES),
    "exp is a list, well signed": hs256(GOOD_HEADER, claims(exp=[NOW + 60]), SECRET_BYTES),
    "exp is infinite": hs256(
        GOOD_HEADER, json.dumps(claims(exp=0)).replace('"exp": 0', '"exp": Infinity').encode(),
        SECRET_BYTES,
    ),
    "not yet": signed(nbf=NOW + 31),
    "made in the future": signed(iat=NOW + 31),
    "another audience": signed(aud="billing"),
    "audience alike": signed(aud="novacron2"),
    "audiences without ours": signed(aud=["a", "b"]),
    "no audience": signed(aud=None),
    "audience is an object": hs256(GOOD_HEADER, claims(aud={"novacron": 1}), SECRET_BYTES),
    "another issuer": signed(iss="https://issuer.example.evil"),
    "issuer with a slash": signed(iss=ISSUER + "/"),
    "no issuer": signed(iss=None),
    "issuer is a list": hs256(GOOD_HEADER, claims(iss=[ISSUER]), SECRET_BYTES),
    "nobody": signed(user_id=None, tenant_id=None),
    "tenant of a configured key": signed(tenant_id="tenant:6e1282"),
    "tenant ends a salt": signed(tenant_id="acme\0x"),
    "tenant is a list": signed(tenant_id=["acme"]),
    "tenant is true": signed(tenant_id=True),
    "user with a line break": signed(user_id="ann\nadmin"),
    "role is an object": signed(role={"admin": True}),
    "roles without end": signed(role=["user"] * 1000),
    "payload is a list": hs256(GOOD_HEADER, ["exp"], SECRET_BYTES),
    "payload is no JSON": hs256(GOOD_HEADER, b"exp", SECRET_BYTES),
    "payload too deep": hs256(GOOD_HEADER, b"[" * 1200, SECRET_BYTES),
    "header is no JSON": forged(b"{", claims(), b"x"),
    "header is a list": forged([], claims(), b"x"),
    "header is bytes": forged(b"\xff\xfe", claims(), b"x"),
    "nothing": b"..",
    "cut": signed()[:-1],
    "signature taken off": signed().rpartition(b".")[0] + b".",
    "payload of another": b".".join(
        (signed().split(b".")[0], signed(role="admin").split(b".")[1], signed().split(b".")[2])
    ),
    "huge": signed(padding="x" * MOST_BYTES),
    "huge header": b"A" * 100_000 + b".e30.x",
    "padded": b" " + signed(),
    "no ASCII": signed()[:-4] + "äöü".encode(),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
async def test_what_is_wrong_with_a_token_keeps_it_out(name: str) -> None:
    authenticator = tokens()
    for _ in range(2):
        with pytest.raises(Unauthenticated) as caught:
            await authenticator.authenticate(ATTACKS[name])
        assert caught.value.was_sent
        assert SECRET not in str(caught.value)


async def test_what_is_no_token_is_nobody_s() -> None:
    for token in (b"", b"sk-key", b"a.b", b"a.b.c.d", b"v1.2"):
        assert await tokens().authenticate(token) is None


async def test_without_a_secret_none_is_the_secret() -> None:
    rules = JwtRules(issuer=ISSUER, audience=(AUDIENCE,))
    for key in (b"", b"None", RSA_PEM):
        with pytest.raises(Unauthenticated, match="not accepted"):
            await tokens(rules).authenticate(hs256(GOOD_HEADER, claims(), key))
    alone = JwtTokens(JwtRules(secret=SECRET), None, roles=BUILT_IN, clock=lambda: NOW)
    with pytest.raises(Unauthenticated, match="not accepted"):
        await alone.authenticate(signed())


async def test_novacrons_own_tokens_need_neither_issuer_nor_audience() -> None:
    alone = JwtTokens(JwtRules(secret=SECRET), None, roles=BUILT_IN, clock=lambda: NOW)
    fields = {"iss": None, "aud": None, "role": "admin"}
    principal = await alone.authenticate(signed(SECRET, "HS256", {}, **fields))
    assert principal is not None
    assert principal.allows("llm:keys:write")
    with pytest.raises(Unauthenticated, match="audience"):
        await alone.authenticate(signed(SECRET, "HS256", {}, iss=None))


async def test_a_token_is_remembered_no_longer_than_it_is_valid() -> None:
    now = NOW

    async def fetch() -> Mapping[str, PublicKey]:
        return public_keys(KEY_SET)

    rules = JwtRules(issuer=ISSUER, audience=(AUDIENCE,), leeway_s=0)
    authenticator = JwtTokens(rules, RemoteKeys(fetch), roles=BUILT_IN, clock=lambda: now)
    token = signed(exp=NOW + 10)
    first = await authenticator.authenticate(token)
    now = NOW + 9
    assert await authenticator.authenticate(token) is first
    now = NOW + 10
    assert await authenticator.authenticate(token) is not first  # asked PyJWT, whose clock stands


@pytest.mark.parametrize(
    ("entry", "usable"),
    [
        (jwk(RSA_KEY, "k"), True),
        (jwk(EC_KEY, "k", use="sig", key_ops=["verify"]), True),
        (jwk(RSA_KEY, "k", use="enc"), False),
        (jwk(RSA_KEY, "k", key_ops=["encrypt"]), False),
        (jwk(RSA_KEY, "k", alg="HS256"), False),
        (jwk(RSA_KEY, "k", alg="none"), False),
        (jwk(RSA_KEY, "k", d="AQAB"), False),
        (jwk(rsa.generate_private_key(public_exponent=65537, key_size=1024), "k"), False),
        ({**jwk(RSA_KEY, "k"), "n": "!"}, False),
        ({**jwk(EC_KEY, "k"), "crv": "P-255"}, False),
        ({**jwk(EC_KEY, "k"), "x": "AAAA"}, False),
        ({"kty": "oct", "kid": "k", "k": "c2VjcmV0", "alg": "HS256"}, False),
        ({"kty": "RSA", "kid": 5}, False),
        ({"kty": "RSA", "kid": "k"}, False),
        ("k", False),
    ],
)
def test_only_public_keys_for_signatures_are_taken(entry: object, usable: bool) -> None:
    assert ("k" in public_keys({"keys": [entry]})) is usable


@pytest.mark.parametrize("document", [None, [], {}, {"keys": {}}, {"keys": None}, "keys"])
def test_a_key_set_that_is_none_is_told(document: object) -> None:
    with pytest.raises(ValueError, match="list of keys"):
        public_keys(document)


async def test_claims_may_have_other_names_and_places() -> None:
    names = ClaimNames(tenant="https://x/org", user="email", role="realm_access.roles")
    rules = JwtRules(secret=SECRET, claims=names)
    authenticator = JwtTokens(rules, None, roles=BUILT_IN, clock=lambda: NOW)
    token = signed(
        SECRET, "HS256", {}, iss=None, aud=None, sub="auth0|17",
        realm_access={"roles": ["viewer", "offline_access"]},
        scope="openid llm:metrics:read llm:keys:write",
    )  # fmt: skip
    principal = await authenticator.authenticate(token)
    assert principal is not None
    assert principal.user_id == "auth0|17"
    assert principal.tenant_id == "user:auth0|17", "of nobody else, a user is a tenant"
    assert principal.permissions == {"llm:metrics:read"}
