"""The certificate that a server shows, read again when its files change.

A new context is made of the new files, and used from the next handshake on; if they do not fit
together (one is written before the other), the old one stays until they do.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path
from typing import Final

from novacron.config.server import ServerConfig
from novacron.errors import ConfigError

_LOOK_EVERY_S: Final = 2.0

logger = logging.getLogger(__name__)

_Signature = tuple[tuple[int, int, int] | None, ...]


class Certificate:
    """Of one server. Raises ConfigError when its files cannot be used at the start."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        names = (config.tls_cert, config.tls_key, config.tls_client_ca)
        self._files = tuple(Path(name).expanduser() for name in names if name)
        self._seen = self._signature()
        self._current = self._load()
        self.context = self._load()
        """What a listener is made with. Each handshake is handed on to the current one."""
        self.context.sni_callback = self._hand_over

    def reload_if_changed(self) -> bool:
        """Whether there is a new certificate. What is wrong with changed files is logged."""
        signature = self._signature()
        if signature == self._seen:
            return False
        self._seen = signature
        try:
            self._current = self._load()
        except ConfigError as error:
            logger.warning("The old certificate stays in use: %s", error)
            return False
        logger.info("a new certificate was read from %s", self._config.tls_cert)
        return True

    async def watch(self) -> None:
        """Look at the files now and then, for ever."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            self.reload_if_changed()

    def _hand_over(
        self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext
    ) -> None:
        connection.context = self._current

    def _load(self) -> ssl.SSLContext:
        config = self._config
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        cert, key = self._files[0], Path(config.tls_key or config.tls_cert).expanduser()
        try:
            context.load_cert_chain(cert, key, password=_no_password)
            if config.tls_client_ca:
                context.verify_mode = ssl.CERT_REQUIRED
                context.load_verify_locations(Path(config.tls_client_ca).expanduser())
                context.num_tickets = 0  # else one whose root is gone could resume for hours
                context.options |= ssl.OP_NO_TICKET
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            files = ", ".join(map(str, self._files))
            raise ConfigError(
                f"tls_cert is {config.tls_cert!r}: the certificate cannot be used: {error}. Check "
                f"that these are PEM files which fit together: {files}."
            ) from error
        return context

    def _signature(self) -> _Signature:
        """Changes when a file does, also one that a link leads to."""
        return tuple(_stamp(path) for path in self._files)


def _no_password() -> str:
    raise ValueError("the private key is encrypted; give one without a password, in mode 0600")


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ino, stat.st_size
