"""Batch files in OpenAI's format: a request on each line in, a response on each line out."""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import dataclass
from pathlib import Path

from novacron.cli.api_client import Json
from novacron.errors import InvalidRequest

URLS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")


@dataclass(frozen=True)
class BatchRequest:
    """One line of the input."""

    custom_id: str
    url: str
    body: Json


@dataclass(frozen=True)
class BatchResult:
    """What became of one request: a response, or the reason why there is none."""

    custom_id: str
    status: int = 0
    body: Json | None = None
    error: str | None = None

    @property
    def ok(self) -> bool:
        return self.error is None and self.status == 200

    def to_line(self) -> str:
        response = {"status_code": self.status, "request_id": _new_id(), "body": self.body}
        line = {
            "id": f"batch_req_{_new_id()}",
            "custom_id": self.custom_id,
            "response": None if self.body is None else response,
            "error": None if self.error is None else {"code": "failed", "message": self.error},
        }
        return json.dumps(line, ensure_ascii=False) + "\n"


def read_requests(path: Path) -> list[BatchRequest]:
    """All requests of a file. Raises InvalidRequest naming the first line that is wrong."""
    requests: dict[str, BatchRequest] = {}
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                request = _parse(line)
            except ValueError as error:
                raise InvalidRequest(f"{path}, line {number}: {error}.") from error
            if request.custom_id in requests:
                raise InvalidRequest(
                    f"{path}, line {number}: custom_id '{request.custom_id}' was used before."
                )
            requests[request.custom_id] = request
    return list(requests.values())


def keep_successes(path: Path) -> set[str]:
    """The custom_ids that an output file answers already.

    Failed answers, and a last line cut short by a crash, are taken out of the file, so that they
    can be tried again.
    """
    if not path.exists():
        return set()
    kept: dict[str, str] = {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    for line in lines:
        custom_id = _answered_id(line)
        if custom_id is not None:
            kept[custom_id] = line
    if len(kept) < len(lines):
        aside = path.with_name(path.name + ".tmp")
        aside.write_text("".join(kept.values()), encoding="utf-8")
        os.replace(aside, path)
    return set(kept)


def _parse(line: str) -> BatchRequest:
    entry = json.loads(line)
    match entry:
        case {"custom_id": str(custom_id), "url": str(url), "body": dict(body)}:
            if entry.get("method", "POST") != "POST":
                raise ValueError(f"method is {entry['method']!r}, but must be POST")
            if url not in URLS:
                raise ValueError(f"url is '{url}', but must be one of {', '.join(URLS)}")
            if body.get("stream"):
                raise ValueError("stream must be off in a batch")
            return BatchRequest(custom_id, url, body)
        case _:
            raise ValueError("it needs custom_id and url (texts) and body (an object)")


def _answered_id(line: str) -> str | None:
    """The custom_id of a line that holds a success."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    match entry:
        case {"custom_id": str(custom_id), "response": {"status_code": 200}} if line.endswith("\n"):
            return custom_id
        case _:
            return None


def _new_id() -> str:
    return uuid.uuid4().hex
