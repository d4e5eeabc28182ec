"""A Vault server for tests: the engine KV, version 2, as far as reading secrets goes."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


class FakeVault:
    """`versions` are those of the one secret, the oldest first; None: it was deleted. `status`
    other than 200 is what everything is answered with."""

    token = "vault-token"
    path = "/v1/secret/data/novacron"

    def __init__(self) -> None:
        self.url = ""
        self.versions: list[str | None] = []
        self.status = 200
        self.num_requests = 0
        self.namespaces: set[str | None] = set()

    def source(self, name: str = "key") -> str:
        """As encryption_key has it."""
        return f"vault:{self.url}{self.path}#{name}"

    def answer(self, path: str, query: str, token: str | None) -> tuple[int, object]:
        self.num_requests += 1
        if self.status != 200:
            return self.status, {"errors": [f"token {token} and more that nobody should see"]}
        if token != self.token:
            return 403, {"errors": ["permission denied"]}
        number = int(parse_qs(query).get("version", [str(len(self.versions))])[0])
        if path != self.path or not 0 < number <= len(self.versions):
            return 404, {"errors": []}
        value = self.versions[number - 1]
        metadata = {"version": number, "destroyed": False}
        data = None if value is None else {"key": value}
        return (404 if value is None else 200), {"data": {"data": data, "metadata": metadata}}


@contextlib.contextmanager
def running_vault() -> Iterator[FakeVault]:
    vault = FakeVault()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            vault.namespaces.add(self.headers.get("X-Vault-Namespace"))
            token = self.headers.get("X-Vault-Token")
            status, body = vault.answer(parts.path, parts.query, token)
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    vault.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield vault
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
