"""Addresses that are taken, forbidden or not ours are told at once, with a remedy."""

from __future__ import annotations

import resource
import socket

import pytest

from novacron.cli.listener import allow_connections, bind, url_of
from novacron.errors import ConfigError


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_listens_on_a_free_port(host: str) -> None:
    with bind(host, 0) as listener:
        port = listener.getsockname()[1]
        assert url_of(listener) == f"http://127.0.0.1:{port}"
        socket.create_connection(("127.0.0.1", port)).close()


def test_a_taken_port() -> None:
    with bind("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port is {port}: another program listens"):
            bind("127.0.0.1", port)


def test_an_address_of_another_machine() -> None:
    with pytest.raises(ConfigError, match=r"host is '192\.0\.2\.1': this machine has no such"):
        bind("192.0.2.1", 0)


def test_an_unknown_host(monkeypatch) -> None:
    def resolve(*args: object, **options: object) -> None:
        raise socket.gaierror("unknown name")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(ConfigError, match=r"host is 'nowhere': unknown name\. Give"):
        bind("nowhere", 0)


def test_ipv6_has_brackets() -> None:
    try:
        listener = bind("::1", 0)
    except ConfigError:
        pytest.skip("no IPv6 here")
    with listener:
        assert url_of(listener).startswith("http://[::1]:")


@pytest.mark.parametrize(
    ("limits", "allowed", "warns"),
    [
        ((1024, 4096), 2128, False),
        ((8192, 8192), None, False),
        ((1024, resource.RLIM_INFINITY), 2128, False),
        ((1024, 1500), 1500, True),
        ((1024, 1024), 1024, True),
    ],
)
def test_files_are_allowed_for_every_connection(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], allowed: int | None, warns: bool
) -> None:
    set_to: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda kind: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda kind, value: set_to.append(value))
    warnings = allow_connections(2000)
    assert set_to == ([] if allowed is None else [(allowed, limits[1])])
    assert [str(limits[1]) in warning for warning in warnings] == ([True] if warns else [])
