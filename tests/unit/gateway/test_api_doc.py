"""docs/api.md names every endpoint and every error code, and none that is not there."""

from __future__ import annotations

import re
from pathlib import Path

from novacron.config.server import ServerConfig
from novacron.gateway.app import build_app
from novacron.gateway.error_mapping import HTTP_ERRORS
from novacron.testing.fake_engine_client import FakeEngineClient

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "api.md").read_text()


def test_the_endpoints_are_those_of_the_app(client: FakeEngineClient) -> None:
    paths = build_app(client, ServerConfig(), model_names=("fake",)).openapi()["paths"]
    served = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    named = set(re.findall(r"^\| `((?:GET|POST|DELETE) [^`]+)`", PAGE, re.MULTILINE))
    assert named == served


def test_the_error_codes_are_those_of_the_mapping() -> None:
    known = {(str(error.status), error.code) for error in HTTP_ERRORS.values() if error.code}
    named = set(re.findall(r"^\| (\d+) \| `(\w+)` \|", PAGE, re.MULTILINE))
    assert named == known
