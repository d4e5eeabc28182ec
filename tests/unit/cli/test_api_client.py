"""Whatever a server does, the client says what happened and what to do."""

from __future__ import annotations

import socket

import pytest

from novacron.cli.api_client import ApiClient, base_url
from novacron.errors import (
    ConfigError,
    InvalidRequest,
    NotReady,
    Overloaded,
    RequestFailed,
    Unauthenticated,
)


def test_streams_events_and_sends_the_key(api) -> None:
    with ApiClient(api.url + "/v1", "secret") as client:
        events = list(client.stream("/v1/completions", {"prompt": "x"}))
    assert events[0] == {"choices": [{"text": " was"}]}
    assert api.keys == {"Bearer secret"}
    assert api.asked == [("/v1/completions", {"prompt": "x"})]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, InvalidRequest),
        (404, InvalidRequest),
        (401, Unauthenticated),
        (429, Overloaded),
        (503, Overloaded),
        (500, RequestFailed),
    ],
)
def test_statuses_become_errors(api, status: int, expected: type[Exception]) -> None:
    api.routes["POST /v1/completions"] = (status, {"error": {"message": "so it is"}})
    api.headers = {"retry-after": "7"}
    with ApiClient(api.url, None) as client:
        for call in (client.post, lambda *args: list(client.stream(*args))):
            with pytest.raises(expected, match="so it is") as raised:
                call("/v1/completions", {})
    if expected is Overloaded:
        assert raised.value.retry_after_s == 7.0


def test_an_error_without_our_shape_still_has_a_message(api) -> None:
    api.routes["GET /x"] = (500, "<html>")
    with ApiClient(api.url, None) as client, pytest.raises(RequestFailed, match=r"answered 500"):
        client.get("/x")


@pytest.mark.parametrize("answer", ["<html>", [1, 2], "7"])
def test_no_json_object(api, answer: object) -> None:
    api.routes["GET /x"] = (200, answer)
    with ApiClient(api.url, None) as client, pytest.raises(RequestFailed, match="no JSON"):
        client.get("/x")


def test_a_server_without_models(api) -> None:
    api.routes["GET /v1/models"] = {"data": []}
    with ApiClient(api.url, None) as client, pytest.raises(RequestFailed, match="lists no models"):
        client.first_model()


def test_an_error_event_ends_the_stream(api) -> None:
    events = [{"choices": [{"text": "a"}]}, {"error": {"message": "engine died"}}]
    api.routes["POST /v1/completions"] = events
    with ApiClient(api.url, None) as client, pytest.raises(RequestFailed, match="engine died"):
        list(client.stream("/v1/completions", {}))


def test_nobody_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (
        ApiClient(f"127.0.0.1:{port}", None) as client,
        pytest.raises(NotReady, match=r"novacron serve.*--model"),
    ):
        client.get("/health")


def test_base_url() -> None:
    assert base_url("localhost:8080") == "http://localhost:8080"
    assert base_url("https://api.example/v1/") == "https://api.example"
    for wrong in ("ftp://x", "http://", "http://x:port"):
        with pytest.raises(ConfigError, match="url is"):
            base_url(wrong)
