"""A small client of the OpenAI API, for the commands that talk to a server.

Failures become errors of NovaCron whose message says what to do, whichever server answers.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import httpx2

from novacron.errors import (
    ConfigError,
    InvalidRequest,
    NotReady,
    NovaCronError,
    Overloaded,
    RequestFailed,
    Unauthenticated,
)

DEFAULT_URL = "http://127.0.0.1:8080"
_TIMEOUT = httpx2.Timeout(600.0, connect=5.0)

Json = dict[str, Any]


class ApiClient:
    """Speaks to one server. `url` may end in /v1."""

    def __init__(
        self, url: str, api_key: str | None, *, transport: httpx2.BaseTransport | None = None
    ) -> None:
        self.url = base_url(url)
        self._http = httpx2.Client(
            base_url=self.url,
            headers=authorization(api_key),
            timeout=_TIMEOUT,
            transport=transport,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._http.close()

    def get(self, path: str) -> Json:
        return self._json("GET", path, None)

    def text(self, path: str) -> str:
        """What is not JSON."""
        with self._reported():
            response = self._http.get(path)
        if response.is_error:
            raise refusal(response)
        return response.text

    def post(self, path: str, body: Mapping[str, object] | None = None) -> Json:
        return self._json("POST", path, body)

    def delete(self, path: str) -> Json:
        return self._json("DELETE", path, None)

    def first_model(self) -> str:
        """The name of the server's main model."""
        models = self.get("/v1/models").get("data")
        if not models:
            raise RequestFailed(f"{self.url} lists no models, so there is none to talk to.")
        return str(models[0]["id"])

    def stream(self, path: str, body: Mapping[str, object]) -> Generator[Json, None, None]:
        """The events of a streamed answer. Closing the iterator ends the request on the server."""
        with self._reported(), self._http.stream("POST", path, json=body) as response:
            if response.is_error:
                response.read()
                raise refusal(response)
            for line in response.iter_lines():
                if not line.startswith("data:"):
                    continue
                data = line.removeprefix("data:").strip()
                if data == "[DONE]":
                    return
                event = _object(data)
                if "error" in event:
                    raise RequestFailed(_message(event["error"]))
                yield event

    def _json(self, method: str, path: str, body: Mapping[str, object] | None) -> Json:
        with self._reported():
            response = self._http.request(method, path, json=body)
        if response.is_error:
            raise refusal(response)
        return _object(response.text)

    @contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except httpx2.HTTPError as error:
            raise unreachable(self.url, error) from error


def base_url(url: str) -> str:
    """Without a trailing /v1, and with a scheme. Raises ConfigError."""
    url = (url if "://" in url else f"http://{url}").rstrip("/").removesuffix("/v1")
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise ConfigError(f"url is {url!r}: {error}. Write for example {DEFAULT_URL}.") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigError(f"url is {url!r}: write for example {DEFAULT_URL}.")
    return url


def authorization(api_key: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}


def unreachable(url: str, error: httpx2.HTTPError) -> NovaCronError:
    match error:
        case httpx2.ConnectError() | httpx2.ConnectTimeout():
            return NotReady(
                f"No server answers at {url}. Start one with `novacron serve`, or name another. "
                "chat, complete and run-batch can bring their own: --model FOLDER, or --model '' "
                "for the bundled model."
            )
        case httpx2.TimeoutException():
            return RequestFailed(f"{url} did not answer in time.")
        case _:
            return RequestFailed(f"The connection to {url} broke: {error or type(error).__name__}.")


def refusal(response: httpx2.Response) -> NovaCronError:
    """The error behind a response with an error status."""
    message = _message_of(response)
    match response.status_code:
        case 401 | 403:
            return Unauthenticated(f"{message} Give the server's key with --api-key.")
        case 429 | 503:
            return Overloaded(message, retry_after_s(response))
        case status if status < 500:
            return InvalidRequest(message)
        case _:
            return RequestFailed(message)


def retry_after_s(response: httpx2.Response) -> float:
    try:
        return float(response.headers.get("retry-after", "1"))
    except ValueError:  # a date is allowed too
        return 1.0


def _message_of(response: httpx2.Response) -> str:
    try:
        body = response.json()
    except ValueError:
        body = None
    if isinstance(body, dict) and body.get("error"):
        return _message(body["error"])
    return f"{response.request.url} answered {response.status_code} {response.reason_phrase}."


def _message(error: object) -> str:
    return str(error["message"]) if isinstance(error, dict) and "message" in error else str(error)


def _object(text: str) -> Json:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise RequestFailed(f"The server sent something that is no JSON: {text[:200]!r}") from error
    if not isinstance(value, dict):
        raise RequestFailed(f"The server sent no JSON object: {text[:200]!r}")
    return value
