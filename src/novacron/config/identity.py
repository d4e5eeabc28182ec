"""Settings of who may call: tokens, roles, and what happens where nobody is configured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from novacron.config.safe_url import is_safe_url
from novacron.config.setting import require, setting
from novacron.errors import ConfigError

_LEAST_SECRET_BYTES: Final = 32


@dataclass(frozen=True, kw_only=True)
class IdentityConfig:
    """Who may call besides those who have one of `api_key`."""

    allow_anonymous: bool = setting(
        False,
        "serve everyone who reaches the server, where neither keys nor tokens are configured; "
        "without it, a server that others can reach makes a key at its first start and demands it",
    )
    custom_roles: tuple[str, ...] = setting(
        (),
        "roles beside admin, operator, user, viewer and auditor, as NAME=PERMISSION+PERMISSION: "
        "scraper=llm:metrics:read+llm:cluster:*",
    )
    jwt_secret: str = setting(
        "",
        "secret of 32 bytes or more that tokens (JWT) are signed with in HS256, such as those of "
        "NovaCron; empty: no such tokens",
        secret=True,
    )
    jwt_jwks_url: str = setting(
        "",
        "https address of a key set (JWKS) that tokens in RS256, ES256 and their like are checked "
        "with; needs jwt_issuer and jwt_audience",
    )
    oidc_issuer: str = setting(
        "",
        "https address of an OpenID Connect issuer, whose key set is discovered and whose tokens "
        "are accepted; needs jwt_audience",
    )
    jwt_issuer: str = setting("", "iss that tokens must have; empty: any, or that of oidc_issuer")
    jwt_audience: tuple[str, ...] = setting(
        (), "tokens must be for one of these (aud); empty: they must not name an audience"
    )
    jwt_leeway: float = setting(
        30.0, "by how much clocks may differ from those of whoever signs tokens", unit="s"
    )
    jwt_tenant_claim: str = setting("tenant_id", "claim with the tenant; a dot leads into objects")
    jwt_user_claim: str = setting("user_id", "claim with the user; where it is missing, sub counts")
    jwt_role_claim: str = setting(
        "role", "claim with the role, or the list of roles: realm_access.roles, groups"
    )

    @property
    def takes_tokens(self) -> bool:
        return bool(self.jwt_secret or self.jwt_jwks_url or self.oidc_issuer)

    def __post_init__(self) -> None:
        parse_roles(self.custom_roles)
        if self.jwt_secret and len(self.jwt_secret.encode()) < _LEAST_SECRET_BYTES:
            raise ConfigError(
                f"jwt_secret is shorter than {_LEAST_SECRET_BYTES} bytes, and could be found by "
                "trying. Make one with: openssl rand -base64 32"
            )
        for key in ("jwt_jwks_url", "oidc_issuer"):
            url = getattr(self, key)
            require(not url or is_safe_url(url), key, url, "give an https:// address")
        require(
            not (self.jwt_jwks_url and self.oidc_issuer), "jwt_jwks_url", self.jwt_jwks_url,
            "oidc_issuer says where keys are; leave one of them out",
        )  # fmt: skip
        require(
            not self.jwt_jwks_url or bool(self.jwt_issuer), "jwt_issuer", self.jwt_issuer,
            "jwt_jwks_url needs it: say whose tokens are accepted (iss)",
        )  # fmt: skip
        require(
            not self.oidc_issuer or self.jwt_issuer in ("", self.oidc_issuer), "jwt_issuer",
            self.jwt_issuer, "oidc_issuer names another; leave jwt_issuer out",
        )  # fmt: skip
        require(
            not (self.jwt_jwks_url or self.oidc_issuer) or bool(self.jwt_audience), "jwt_audience",
            self.jwt_audience,
            "give the name of this server at the issuer: else tokens that were made for other "
            "services would open this one",
        )  # fmt: skip
        require(0 <= self.jwt_leeway <= 300, "jwt_leeway", self.jwt_leeway, "give 0 to 300 s")
        for key in ("jwt_tenant_claim", "jwt_user_claim", "jwt_role_claim"):
            require(bool(getattr(self, key)), key, "", "give the name of a claim")


def parse_roles(texts: tuple[str, ...]) -> Mapping[str, tuple[str, ...]]:
    """Permissions (patterns) by role. Raises ConfigError."""
    roles: dict[str, tuple[str, ...]] = {}
    for text in texts:
        name, _, patterns = text.partition("=")
        parts = tuple(part.strip() for part in patterns.split("+") if part.strip())
        require(
            bool(name.strip()) and bool(parts) and name.strip() not in roles, "custom_roles", text,
            "write each role once, as NAME=PERMISSION+PERMISSION",
        )  # fmt: skip
        roles[name.strip()] = parts
    return roles
