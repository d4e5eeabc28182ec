"""Master keys from where `encryption_key` says: a variable, a file, or Vault."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from novacron.encryption.master_keys import KeysInText, KeysUnavailable, MasterKeys
from novacron.encryption.vault_keys import VaultKeys, VaultLogin
from novacron.errors import ConfigError

_MOST_BYTES: Final = 16 * 1024


def open_master_keys(source: str, environment: Mapping[str, str]) -> MasterKeys:
    """`source` is one that config/privacy.py has let pass. Raises ConfigError if there is no key,
    and for Vault if nobody says who asks; asks Vault nothing yet."""
    kind, _, rest = source.partition(":")
    if kind == "env":
        return KeysInText(Variable(rest, environment))
    if kind == "file":
        return KeysInText(KeyFile(Path(rest).expanduser()))
    url, _, name = rest.partition("#")
    return VaultKeys(url, name or "key", _login(environment))


@dataclass(frozen=True)
class Variable:
    """Implements TextKeys."""

    name: str
    environment: Mapping[str, str] = field(repr=False)

    @property
    def shown(self) -> str:
        return f"the environment variable {self.name}"

    def read(self) -> str:
        return self.environment.get(self.name, "")


@dataclass(frozen=True)
class KeyFile:
    """Implements TextKeys. Refuses a file that others may read."""

    path: Path

    @property
    def shown(self) -> str:
        return str(self.path)

    def read(self) -> str:
        try:
            mode = self.path.stat().st_mode
            text = self.path.read_bytes()[:_MOST_BYTES]
        except FileNotFoundError:
            raise ConfigError(
                f"encryption_key: there is no file {self.path}. Make one, readable to the server's "
                "user alone: (umask 077; novacron encryption new-key > FILE)"
            ) from None
        except OSError as error:
            raise KeysUnavailable(f"{self.path} cannot be read: {error.strerror}") from error
        if mode & 0o077:
            raise ConfigError(
                f"encryption_key: others may read {self.path}. Take that from them: chmod 600 FILE"
            )
        return re.sub(r"(?m)#.*$", "", text.decode("ascii", "replace"))


def _login(environment: Mapping[str, str]) -> VaultLogin:
    """From where Vault's own tools take it."""
    token = environment.get("VAULT_TOKEN", "")
    home = environment.get("HOME", "")
    if not token and home:
        try:
            token = (Path(home) / ".vault-token").read_text().strip()
        except OSError:
            token = ""
    if not token:
        raise ConfigError(
            "encryption_key is in Vault, and there is no token for it: set VAULT_TOKEN, or have "
            "Vault's agent write ~/.vault-token."
        )
    return VaultLogin(
        token, environment.get("VAULT_NAMESPACE", ""), environment.get("VAULT_CACERT", "")
    )
