"""Which settings make a server ask for what."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import jwt
import pytest

from novacron.cli.identity import identity_of
from novacron.config.load import Settings, load
from novacron.errors import ConfigError
from novacron.gateway.identity.first_key import FILE_NAME
from novacron.gateway.identity.principal import Authenticator

SECRET = "a secret of at least thirty-two bytes"


def settings(**flags: object) -> Settings:
    return load(file=None, env={}, flags=flags)


def token(**claims: object) -> bytes:
    return jwt.encode({"exp": time.time() + 60, "sub": "ann", **claims}, SECRET).encode()


async def tenant(authenticator: Authenticator | None, sent: bytes) -> str:
    assert authenticator is not None
    principal = await authenticator.authenticate(sent)
    assert principal is not None
    return principal.tenant_id


def test_only_this_machine_is_let_in_without_a_key() -> None:
    for host in ("127.0.0.1", "localhost", "::1"):
        identity = identity_of(settings(host=host))
        assert (identity.authenticator, identity.notice, identity.warnings) == (None, "", ())


async def test_a_server_that_others_reach_makes_a_key_and_demands_it(tmp_path: Path) -> None:
    reachable = settings(host="0.0.0.0", state_dir=str(tmp_path))
    first = identity_of(reachable)
    [key] = [word for word in first.notice.split() if word.startswith("nck_")]
    assert await tenant(first.authenticator, key.encode()) == ""
    second = identity_of(reachable)
    assert key not in second.notice
    assert str(tmp_path / "novacron" / FILE_NAME) in second.notice
    assert await tenant(second.authenticator, key.encode()) == ""


def test_unless_it_is_told_to_serve_everyone_or_has_keys(tmp_path: Path) -> None:
    state = {"host": "0.0.0.0", "state_dir": str(tmp_path)}
    openly = identity_of(settings(**state, allow_anonymous=True))
    assert openly.authenticator is None
    assert "whoever reaches" in openly.warnings[0]
    for flags in ({"api_key": ["sk"]}, {"jwt_secret": SECRET}):
        identity = identity_of(settings(**state, **flags, allow_anonymous=True))
        assert identity.authenticator is not None
        assert "no effect" in identity.warnings[0]
        assert identity.notice == ""
    assert not list(tmp_path.iterdir())


async def test_a_configured_key_is_everyone_s_only_if_there_is_no_other_way_in() -> None:
    assert await tenant(identity_of(settings(api_key=["sk"])).authenticator, b"sk") == ""
    both = identity_of(settings(api_key=["sk"], jwt_secret=SECRET)).authenticator
    assert (await tenant(both, b"sk")).startswith("tenant:")
    assert await tenant(both, token(tenant_id="acme")) == "acme"
    assert both is not None
    both.forget("any")
    assert await both.authenticate(b"neither") is None


async def test_keys_of_accounts_are_asked_for_on_loopback_too(tmp_path: Path) -> None:
    class NoKeys:
        async def find(self, prefix: str) -> None:
            return None

        def note_use(self, key: object) -> None:
            """It is the first key that comes, which this one does not have."""

        async def custom_roles(self) -> Mapping[str, tuple[str, ...]]:
            return {}

    state = {"state_dir": str(tmp_path)}
    identity = identity_of(settings(**state), NoKeys())
    assert identity.authenticator is not None
    assert await identity.authenticator.authenticate(b"any") is None
    assert identity.notice == ""
    identity = identity_of(settings(**state, host="0.0.0.0", allow_anonymous=True), NoKeys())
    [key] = [word for word in identity.notice.split() if word.startswith("nck_")]
    assert (await tenant(identity.authenticator, key.encode())).startswith("tenant:")


async def test_custom_roles_count() -> None:
    config = settings(jwt_secret=SECRET, custom_roles=["scraper=llm:metrics:read"])
    authenticator = identity_of(config).authenticator
    assert authenticator is not None
    principal = await authenticator.authenticate(token(role="scraper"))
    assert principal is not None
    assert principal.permissions == {"llm:metrics:read"}
    for wrong, reason in (("admin=llm:*", "built in"), ("a=llm:metric:read", "no permission")):
        with pytest.raises(ConfigError, match=reason):
            identity_of(settings(jwt_secret=SECRET, custom_roles=[wrong]))


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ({"jwt_secret": "short"}, "shorter than 32"),
        ({"jwt_jwks_url": "http://issuer.example/keys"}, "https"),
        ({"jwt_jwks_url": "file:///etc/passwd"}, "https"),
        ({"jwt_jwks_url": "https://user:word@issuer.example"}, "https"),
        ({"jwt_jwks_url": "https://issuer.example/keys"}, "jwt_issuer"),
        ({"jwt_jwks_url": "https://i.example/k", "jwt_issuer": "i"}, "jwt_audience"),
        ({"oidc_issuer": "https://issuer.example"}, "jwt_audience"),
        (
            {"oidc_issuer": "https://i.example", "jwt_audience": ["a"], "jwt_issuer": "b"},
            "names another",
        ),
        (
            {"oidc_issuer": "https://i", "jwt_jwks_url": "https://i", "jwt_audience": ["a"]},
            "leave one",
        ),
        ({"custom_roles": ["scraper"]}, "NAME=PERMISSION"),
        ({"custom_roles": ["a=llm:*", "a=llm:*"]}, "once"),
        ({"jwt_leeway": 3600}, "300"),
        ({"tls_key": "key.pem"}, "tls_cert"),
        ({"tls_client_ca": "ca.pem"}, "tls_cert"),
    ],
)
def test_settings_that_would_not_protect_are_refused(flags: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        settings(**flags)
    assert "short " not in str(caught.value).replace("shorter ", "")


def test_what_is_not_configured_is_not_imported() -> None:
    """Cryptography and its kin would double the time that a start takes."""
    code = (
        "import sys, novacron.cli.serve_loop\n"
        "from novacron.config.load import load\n"
        "from novacron.cli.identity import identity_of\n"
        "identity_of(load(file=None, env={}, flags={'api_key': ['sk']}))\n"
        "heavy = {'jwt', 'cryptography', 'argon2', 'httpx2', 'sqlalchemy'}\n"
        "print(*sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
