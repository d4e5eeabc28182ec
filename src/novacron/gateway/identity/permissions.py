"""What may be allowed, and the roles that allow it: one table each. Pure.

A permission is `llm:RESOURCE:ACTION`. Roles and the scopes of keys are lists of permissions, in
which `*` stands for every action, or resource and action: `llm:inference:*`, `llm:*`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from novacron.errors import InvalidRequest

INFERENCE_READ: Final = "llm:inference:read"
INFERENCE_WRITE: Final = "llm:inference:write"
MODELS_READ: Final = "llm:models:read"
MODELS_WRITE: Final = "llm:models:write"
CACHE_READ: Final = "llm:cache:read"
CACHE_WRITE: Final = "llm:cache:write"
CLUSTER_READ: Final = "llm:cluster:read"
CLUSTER_WRITE: Final = "llm:cluster:write"
METRICS_READ: Final = "llm:metrics:read"
CONFIG_READ: Final = "llm:config:read"
CONFIG_WRITE: Final = "llm:config:write"
ACCOUNTS_READ: Final = "llm:accounts:read"
ACCOUNTS_WRITE: Final = "llm:accounts:write"
KEYS_READ: Final = "llm:keys:read"
KEYS_WRITE: Final = "llm:keys:write"
AUDIT_READ: Final = "llm:audit:read"
AUDIT_WRITE: Final = "llm:audit:write"
PROMPTS_READ: Final = "llm:prompts:read"
PROMPTS_WRITE: Final = "llm:prompts:write"

PERMISSIONS: Final[Mapping[str, str]] = {
    INFERENCE_READ: "count tokens, read streams of the own tenant",
    INFERENCE_WRITE: "generate, embed, cancel requests of the own tenant",
    MODELS_READ: "list models",
    MODELS_WRITE: "load and unload models",
    CACHE_READ: "see how full the KV cache is, list the own pins and public ones",
    CACHE_WRITE: "pin, unpin and warm prefixes of the own tenant",
    CLUSTER_READ: "see workers and the health of components",
    CLUSTER_WRITE: "drain, resume and scale; clear the cache, pin for everyone, cancel any request",
    METRICS_READ: "read all metrics",
    CONFIG_READ: "see settings",
    CONFIG_WRITE: "change settings",
    ACCOUNTS_READ: "see tenants, users, roles, quotas and usage",
    ACCOUNTS_WRITE: "change tenants, users, roles and quotas",
    KEYS_READ: "list API keys",
    KEYS_WRITE: "make, rotate and revoke API keys",
    AUDIT_READ: "read the audit log",
    AUDIT_WRITE: "export and close parts of the audit log",
    PROMPTS_READ: "read kept prompts and answers of the own tenant",
    PROMPTS_WRITE: "remove kept prompts and answers of the own tenant",
}

ROLES: Final[Mapping[str, tuple[str, ...]]] = {
    "admin": ("llm:*",),
    "operator": (
        "llm:inference:*",
        "llm:models:*",
        "llm:cache:*",
        "llm:cluster:*",
        METRICS_READ,
        CONFIG_READ,
    ),
    "user": ("llm:inference:*", MODELS_READ, "llm:cache:*"),
    "viewer": (MODELS_READ, CACHE_READ, CLUSTER_READ, METRICS_READ, CONFIG_READ),
    "auditor": (AUDIT_READ, ACCOUNTS_READ, KEYS_READ, METRICS_READ),
}


def expand(patterns: Iterable[str]) -> frozenset[str]:
    """The permissions that `patterns` stand for. Those that no permission fits add nothing."""
    return frozenset(
        permission
        for pattern in patterns
        for permission in PERMISSIONS
        if _fits(pattern, permission)
    )


def unknown(patterns: Iterable[str]) -> tuple[str, ...]:
    """The patterns that stand for nothing: misspelt, or of another version."""
    return tuple(pattern for pattern in patterns if not expand((pattern,)))


def check_patterns(patterns: Iterable[str], param: str) -> None:
    """Raises InvalidRequest for patterns that stand for nothing."""
    if wrong := unknown(patterns):
        raise InvalidRequest(
            f"{', '.join(wrong)} is no permission. There are: {', '.join(PERMISSIONS)}; "
            "llm:RESOURCE:* stands for all actions.",
            param=param,
        )


def check_role(name: str, patterns: Iterable[str]) -> None:
    """Raises InvalidRequest for a custom role that would never count, or allow nothing."""
    if name in ROLES:
        raise InvalidRequest(f"The role '{name}' is built in. Choose another name.", param="name")
    check_patterns(patterns, "permissions")


def _fits(pattern: str, permission: str) -> bool:
    if pattern == "*":
        return True
    if pattern.endswith(":*"):
        return permission.startswith(pattern[:-1])
    return pattern == permission


@dataclass(frozen=True)
class Roles:
    """The built-in roles, and `custom` ones: their permissions, by name.

    A custom role never replaces a built-in one of the same name.
    """

    custom: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def permissions_of(self, names: Iterable[str]) -> frozenset[str]:
        """All that these roles allow together. An unknown role allows nothing."""
        return frozenset().union(
            *(expand(ROLES.get(name) or self.custom.get(name, ())) for name in names)
        )


BUILT_IN: Final = Roles()


def granted(role_permissions: frozenset[str], scopes: Iterable[str]) -> frozenset[str]:
    """What a credential with `scopes` may do: never more than its roles; no scopes, no less."""
    scopes = tuple(scopes)
    return role_permissions & expand(scopes) if scopes else role_permissions
