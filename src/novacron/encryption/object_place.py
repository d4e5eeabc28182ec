"""Wrapped data keys in the bucket that keeps what they encrypt, an object for each."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

import obstore
from obstore.exceptions import BaseError
from obstore.store import from_url

from novacron.config.url_secrets import mask_url
from novacron.encryption.key_places import ID

_FOLDER: Final = "data-keys"


class ObjectPlace:
    """Implements KeyPlace. Raises ValueError for a URL that is none."""

    def __init__(self, url: str, timeout_s: float, options: dict[str, Any] | None = None) -> None:
        self._shown = f"{mask_url(url)}/{_FOLDER}"
        is_remote = not url.startswith(("file:", "memory:"))
        patience = timedelta(seconds=timeout_s)
        client: dict[str, Any] = {"client_options": {"timeout": patience, "allow_http": True}}
        try:
            self._store: Any = from_url(url, **(client if is_remote else {}), **(options or {}))
        except BaseError as error:
            raise ValueError(str(error)[:200]) from None

    @property
    def shown(self) -> str:
        return self._shown

    def read(self) -> Mapping[str, bytes]:
        found = {}
        try:
            for page in obstore.list(self._store, _FOLDER + "/"):
                for one in page:
                    id = one["path"].removeprefix(_FOLDER + "/")
                    if ID.fullmatch(id):
                        found[id] = bytes(obstore.get(self._store, one["path"]).bytes())
        except (BaseError, OSError) as error:
            raise OSError(f"object store: {type(error).__name__}") from None
        return found

    def write(self, id: str, data: bytes) -> None:
        try:
            obstore.put(self._store, f"{_FOLDER}/{id}", data)
        except (BaseError, OSError) as error:
            raise OSError(f"object store: {type(error).__name__}") from None
