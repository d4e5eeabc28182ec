from __future__ import annotations

from collections.abc import Iterator

import pytest

from novacron import errors
from novacron.gateway.error_mapping import (
    HTTP_ERRORS,
    error_body,
    error_detail,
    error_headers,
    http_error,
)
from novacron.gateway.openai.responses import LoadingProgress, encode


def _subclasses(cls: type[errors.NovaCronError]) -> Iterator[type[errors.NovaCronError]]:
    yield cls
    for subclass in cls.__subclasses__():
        yield from _subclasses(subclass)


def test_every_error_class_has_its_own_row() -> None:
    known = {cls for cls in _subclasses(errors.NovaCronError) if cls.__module__ == errors.__name__}
    assert set(HTTP_ERRORS) == known


@pytest.mark.parametrize("cls", HTTP_ERRORS)
def test_retryable_errors_are_the_server_s_fault_or_ask_for_patience(
    cls: type[errors.NovaCronError],
) -> None:
    status = HTTP_ERRORS[cls].status
    assert 400 <= status < 600
    if cls.retryable:
        assert status == 429 or status >= 500


def test_a_class_without_a_row_has_its_parent_s() -> None:
    class MoreSpecial(errors.PromptTooLong): ...

    assert http_error(MoreSpecial(5, None, 4)) is HTTP_ERRORS[errors.PromptTooLong]


def test_prompt_too_long_names_both_numbers_and_the_field() -> None:
    detail = error_detail(errors.PromptTooLong(5000, 100, 2048))
    assert "5000" in detail.message
    assert "2048" in detail.message
    assert (detail.param, detail.code) == ("max_tokens", "context_length_exceeded")


@pytest.mark.parametrize(("after_s", "header"), [(0.2, "1"), (1.0, "1"), (4.2, "5")])
def test_retry_after_is_whole_seconds_and_never_too_early(after_s: float, header: str) -> None:
    assert error_headers(errors.Overloaded("full", after_s)) == {"retry-after": header}


def test_no_retry_after_where_a_retry_is_no_use() -> None:
    assert error_headers(errors.InvalidRequest("no")) == {}


def test_loading_progress_stands_beside_the_error() -> None:
    body = error_body(errors.NotReady("loading"), LoadingProgress("weights", 0.25))
    assert b'"loading":{"phase":"weights","progress":0.25}' in encode(body)
    assert b"loading" not in encode(error_body(errors.InvalidRequest("x")))
