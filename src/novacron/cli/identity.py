"""Who may call this server, put together from the settings."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from novacron.config.folders import state_folder
from novacron.config.identity import IdentityConfig, parse_roles
from novacron.config.load import Settings
from novacron.errors import ConfigError, InvalidRequest

if TYPE_CHECKING:  # imported at run time only where it is configured
    from novacron.gateway.identity.key_directory import KeyDirectory
    from novacron.gateway.identity.permissions import Roles
    from novacron.gateway.identity.principal import Authenticator


@dataclass(frozen=True)
class Identity:
    """`authenticator` is None where everyone may do everything. `notice` is for the terminal: it
    may hold a key that was just made, and must not be logged."""

    authenticator: Authenticator | None
    notice: str = ""
    warnings: tuple[str, ...] = ()


def identity_of(settings: Settings, directory: KeyDirectory | None = None) -> Identity:
    """`directory`: the keys of accounts, where there are some. Raises ConfigError.

    A server that only this machine can reach, with nothing configured, is open. One that others
    can reach has a first key, unless its settings say who may call; with accounts too, which may
    still be empty.
    """
    server, config = settings.server, settings.identity
    is_configured = bool(server.api_key or config.takes_tokens)
    if not is_configured and directory is None:
        if server.is_loopback:
            return Identity(None)
        if config.allow_anonymous:
            return Identity(None, warnings=(_open_to_everyone(server.host),))

    from novacron.gateway.identity.configured_keys import ConfiguredKeys
    from novacron.gateway.identity.principal import AnyOf

    roles = _roles(config)
    parts: list[Authenticator] = []
    directories = [] if directory is None else [directory]
    notice = ""
    if server.api_key:
        alone = not config.takes_tokens and directory is None
        parts.append(ConfiguredKeys(server.api_key, server.key_shares, alone=alone))
    elif not is_configured and not server.is_loopback:
        first, notice = _first_key(settings, alone=directory is None)
        directories.insert(0, first)
    if directories:
        parts.append(_stored_keys(tuple(directories), roles))
    if config.takes_tokens:
        parts.append(_tokens(config, roles))
    authenticator = parts[0] if len(parts) == 1 else AnyOf(tuple(parts))
    warnings = ("allow_anonymous has no effect: keys or tokens are configured.",)
    return Identity(authenticator, notice, warnings if config.allow_anonymous else ())


def _open_to_everyone(host: str) -> str:
    return (
        f"Listening on {host} without a key (allow_anonymous): whoever reaches this address can "
        "use and unload the model."
    )


def _roles(config: IdentityConfig) -> Roles:
    from novacron.gateway.identity.permissions import Roles, check_role

    custom = parse_roles(config.custom_roles)
    for name, patterns in custom.items():
        try:
            check_role(name, patterns)
        except InvalidRequest as error:
            raise ConfigError(f"custom_roles: of '{name}': {error}") from error
    return Roles(custom)


def _first_key(settings: Settings, *, alone: bool) -> tuple[KeyDirectory, str]:
    from novacron.gateway.identity.first_key import FILE_NAME, FirstKeyDirectory, first_key
    from novacron.gateway.identity.key_hash import hash_key

    folder = state_folder(settings.server)
    key, made = first_key(folder, hash_key)
    if made is None:
        day = datetime.fromtimestamp(key.created_at, UTC).date()
        notice = (
            f"The administrator's key is {key.prefix}..., which was made and shown here on {day}. "
            f"If it is lost, delete {folder / FILE_NAME} and start again."
        )
    else:
        notice = (
            "Others can reach this server, and no key is configured. This one was made for its "
            f"administrator:\n\n    {made.text}\n\nIt is not shown again. Send it as "
            "'Authorization: Bearer KEY'; for novacron's own commands set NOVACRON_API_KEY. "
            "(--allow-anonymous serves without a key.)"
        )
    return FirstKeyDirectory(key, alone=alone), notice


def _stored_keys(directories: tuple[KeyDirectory, ...], roles: Roles) -> Authenticator:
    from novacron.gateway.identity.key_directory import Directories
    from novacron.gateway.identity.key_hash import is_key_of
    from novacron.gateway.identity.stored_keys import StoredKeys

    return StoredKeys(Directories(directories), is_key_of, roles=roles)


def _tokens(config: IdentityConfig, roles: Roles) -> Authenticator:
    from novacron.gateway.identity.claims import ClaimNames
    from novacron.gateway.identity.jwt_tokens import JwtRules, JwtTokens

    rules = JwtRules(
        secret=config.jwt_secret,
        issuer=config.jwt_issuer or config.oidc_issuer,
        audience=config.jwt_audience,
        leeway_s=config.jwt_leeway,
        claims=ClaimNames(
            tenant=config.jwt_tenant_claim,
            user=config.jwt_user_claim,
            role=config.jwt_role_claim,
        ),
    )
    if not (config.jwt_jwks_url or config.oidc_issuer):
        return JwtTokens(rules, None, roles=roles)

    from novacron.gateway.identity.key_set_source import DiscoveredKeySetSource, KeySetSource
    from novacron.gateway.identity.remote_keys import RemoteKeys

    if config.oidc_issuer:
        return JwtTokens(rules, RemoteKeys(DiscoveredKeySetSource(config.oidc_issuer)), roles=roles)
    return JwtTokens(rules, RemoteKeys(KeySetSource(config.jwt_jwks_url)), roles=roles)
