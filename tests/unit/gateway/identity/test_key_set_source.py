"""Key sets over real HTTP, from a server of this test."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from novacron.errors import IdentityUnavailable, Unauthenticated
from novacron.gateway.identity.jwt_tokens import JwtRules, JwtTokens
from novacron.gateway.identity.key_set_source import DiscoveredKeySetSource, KeySetSource
from novacron.gateway.identity.permissions import BUILT_IN
from novacron.gateway.identity.remote_keys import RemoteKeys

KEYS = [rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2)]


class Issuer:
    """Answers paths with `pages`: a status, headers and a body each."""

    def __init__(self) -> None:
        self.pages: dict[str, tuple[int, str, str]] = {}
        self.asked: list[str] = []
        self.url = ""
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    def publish(self, *numbers: int) -> None:
        entries = [
            {**RSAAlgorithm.to_jwk(KEYS[n].public_key(), as_dict=True), "kid": f"k{n}"}
            for n in numbers
        ]
        self.page("/keys", {"keys": entries})
        self.page(
            "/.well-known/openid-configuration",
            {"issuer": self.url, "jwks_uri": f"{self.url}/keys"},
        )

    def page(self, path: str, body: object, status: int = 200, headers: str = "") -> None:
        self.pages[path] = (status, headers, body if isinstance(body, str) else json.dumps(body))

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode()
        self.asked.append(path)
        status, headers, body = self.pages.get(path, (404, "", "nothing"))
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
        writer.write(f"{head}{headers}\r\n{body}".encode())
        await writer.drain()
        writer.close()


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    issuer = Issuer()
    await issuer.start()
    issuer.publish(0)
    yield issuer
    await issuer.stop()


def token(number: int, issuer: Issuer) -> bytes:
    claims = {"iss": issuer.url, "aud": "us", "exp": time.time() + 3600, "sub": "ann"}
    return jwt.encode(claims, KEYS[number], "RS256", {"kid": f"k{number}"}).encode()


async def test_keys_roll_over_without_a_restart(issuer: Issuer) -> None:
    now = 0.0
    source = DiscoveredKeySetSource(issuer.url)
    keys = RemoteKeys(source, refetch_s=10, clock=lambda: now)
    rules = JwtRules(issuer=issuer.url, audience=("us",))
    # The clock of what is remembered jumps, so that each token is looked at anew.
    authenticator = JwtTokens(rules, keys, roles=BUILT_IN, clock=lambda: time.time() + 1000 * now)

    async def who(number: int) -> str:
        principal = await authenticator.authenticate(token(number, issuer))
        assert principal is not None
        return principal.user_id

    assert await who(0) == "ann"
    with pytest.raises(Unauthenticated, match="not known"):
        await who(1)
    issuer.publish(0, 1)  # the new key is announced beside the old one
    now = 10.0
    assert [await who(1), await who(0)] == ["ann", "ann"]
    issuer.publish(1)  # and the old one is withdrawn
    now = 20.0
    assert await keys.find("k2") is None  # any unknown key makes us look
    with pytest.raises(Unauthenticated, match="not known"):
        await who(0)
    assert await who(1) == "ann"
    assert set(issuer.asked) == {"/.well-known/openid-configuration", "/keys"}


async def test_a_fixed_address_is_asked_and_nothing_else(issuer: Issuer) -> None:
    assert set(await KeySetSource(f"{issuer.url}/keys")()) == {"k0"}
    assert issuer.asked == ["/keys"]


async def test_what_is_no_key_set_is_refused_with_the_reason(issuer: Issuer) -> None:
    source = KeySetSource(f"{issuer.url}/keys")
    for body, status, headers, reason in (
        ("moved", 302, "Location: /elsewhere\r\n", "answers 302"),
        ("no", 500, "", "answers 500"),
        ("<html>", 200, "", "no JSON"),
        ("[" * 5000, 200, "", "no JSON"),
        ("[]", 200, "", "no JSON object with a list"),
        ('{"keys": []}', 200, "", "no key that"),
        (" " * 600_000, 200, "", "longer than"),
    ):
        issuer.page("/keys", body, status, headers)
        with pytest.raises(IdentityUnavailable, match=reason):
            await source()
    assert "/elsewhere" not in issuer.asked
    await issuer.stop()
    with pytest.raises(IdentityUnavailable, match="cannot be had"):
        await source()
    await issuer.start()


async def test_an_issuer_vouches_for_itself_alone(issuer: Issuer) -> None:
    for document, reason in (
        ({"issuer": "https://other.example", "jwks_uri": f"{issuer.url}/keys"}, "not that of"),
        ({"issuer": issuer.url + "/", "jwks_uri": f"{issuer.url}/keys"}, "not that of"),
        ({"issuer": issuer.url}, "no https"),
        ({"issuer": issuer.url, "jwks_uri": "file:///etc/passwd"}, "no https"),
        ({"issuer": issuer.url, "jwks_uri": "http://169.254.169.254/keys"}, "no https"),
        ([], "not that of"),
    ):
        issuer.page("/.well-known/openid-configuration", document)
        with pytest.raises(IdentityUnavailable, match=reason):
            await DiscoveredKeySetSource(issuer.url)()
    assert "/keys" not in issuer.asked
