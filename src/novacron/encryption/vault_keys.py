"""Master keys in HashiCorp Vault (or OpenBao), as versions of a secret of its engine KV, version 2.

The newest version is the current key. A rotation writes a new version and leaves the old ones,
which unwrap what they have wrapped: so Vault itself keeps the history.
"""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import Any, Final

from novacron.encryption.master_keys import KeysUnavailable, MasterKey, parse_master_keys
from novacron.errors import ConfigError

_TIMEOUT_S: Final = 5.0
_MOST_BYTES: Final = 64 * 1024
_MOST_VERSIONS: Final = 32  # looked through for an old key


@dataclass(frozen=True)
class VaultLogin:
    """`ca_file` is that of Vault's root, empty: the system's."""

    token: str = field(repr=False)
    namespace: str = ""
    ca_file: str = ""


@dataclass(frozen=True)
class _Version:
    number: int
    key: MasterKey


class VaultKeys:
    """Implements MasterKeys. `url` is that of the secret (https://vault:8200/v1/secret/data/name),
    `field` the one in it that holds the key."""

    def __init__(self, url: str, field: str, login: VaultLogin) -> None:
        self._url = url
        self._field = field
        self._login = login
        self._opener = _opener(login)

    @property
    def shown(self) -> str:
        return f"Vault's {self._url}"

    def current(self) -> MasterKey:
        return self._newest().key

    def find(self, id: str) -> MasterKey | None:
        newest = self._newest()
        if newest.key.id == id:
            return newest.key
        for number in range(newest.number - 1, max(0, newest.number - _MOST_VERSIONS), -1):
            found = self._read(number)
            if found is not None and found.key.id == id:
                return found.key
        return None

    def _newest(self) -> _Version:
        newest = self._read(None)
        if newest is None:
            raise ConfigError(
                f"encryption_key: {self.shown} has no secret. Write one: vault kv put MOUNT/NAME "
                f'{self._field}="$(novacron encryption new-key)"'
            )
        return newest

    def _read(self, number: int | None) -> _Version | None:
        """A version of the secret, the newest for None; None if it is not there (any more)."""
        content = self._get("" if number is None else f"?version={number}")
        if content is None:
            return None
        try:
            values, metadata = content["data"]["data"], content["data"]["metadata"]
            version = int(metadata["version"])
            text = values[self._field]
        except (KeyError, TypeError, ValueError):
            raise ConfigError(
                f"encryption_key: {self.shown} has no field '{self._field}', or is no secret of an "
                "engine KV of version 2, whose addresses have /data/ in them."
            ) from None
        return _Version(version, parse_master_keys(str(text), self.shown)[0])

    def _get(self, query: str) -> Any:
        """What Vault answers; None for 404. Its errors may quote what was sent, and are not
        passed on."""
        headers = {"X-Vault-Token": self._login.token, "X-Vault-Request": "true"}
        if self._login.namespace:
            headers["X-Vault-Namespace"] = self._login.namespace
        request = urllib.request.Request(self._url + query, headers=headers)
        try:
            with self._opener.open(request, timeout=_TIMEOUT_S) as answer:
                return json.loads(answer.read(_MOST_BYTES))
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 404:
                return None
            if error.code in (400, 401, 403):
                raise ConfigError(
                    f"encryption_key: Vault refuses to tell {self._url} (status {error.code}). "
                    "Look at the token and its policy: it needs read on this path."
                ) from None
            raise KeysUnavailable(f"{self.shown}: status {error.code}") from None
        except (OSError, ValueError) as error:
            raise KeysUnavailable(f"{self.shown} does not answer: {error}") from None


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would send the token to whoever it names."""

    def redirect_request(self, *arguments: Any, **more: Any) -> None:
        return None


def _opener(login: VaultLogin) -> urllib.request.OpenerDirector:
    try:
        context = ssl.create_default_context(cafile=login.ca_file or None)
    except OSError as error:
        raise ConfigError(
            f"VAULT_CACERT is {login.ca_file}, which cannot be read: {error.strerror}"
        ) from None
    https = urllib.request.HTTPSHandler(context=context)
    return urllib.request.build_opener(https, _NoRedirects(), urllib.request.ProxyHandler({}))
