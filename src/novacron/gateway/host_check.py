"""By which names clients may call a server that asks for no key.

A web page can let its own name point to the address of this machine after it was loaded (DNS
rebinding). To the browser, server and page are of one origin then, so that the page may read every
answer; but its requests still carry the name. Names that nobody else can own, and addresses, which
have no name to point anywhere, are safe.
"""

from __future__ import annotations

from ipaddress import ip_address

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from novacron.errors import HostNotAllowed
from novacron.gateway.auth import OPEN_PATHS
from novacron.gateway.error_handlers import error_response


class HostCheck:
    """Refuses requests whose Host is a name that is neither local nor among `allowed`.

    `*.example.org` stands for every name below, `*` for any. Probes always pass.
    """

    def __init__(self, app: ASGIApp, allowed: tuple[str, ...]) -> None:
        names = ("localhost", "*.localhost", *(name.lower() for name in allowed))
        self._app = app
        self._names = frozenset(names)
        self._suffixes = tuple(name.removeprefix("*") for name in names if name.startswith("*"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan" and scope["path"] not in OPEN_PATHS:
            host = Headers(scope=scope).get("host")
            if host is not None and not self._answers_to(_without_port(host)):
                await error_response(HostNotAllowed(host))(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _answers_to(self, host: str) -> bool:
        name = host.lower().removesuffix(".")
        return name in self._names or name.endswith(self._suffixes) or _is_address(host)


def _without_port(host: str) -> str:
    name, _, port = host.rpartition(":")
    return name if name and port.isdecimal() else host


def _is_address(host: str) -> bool:
    try:
        ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
