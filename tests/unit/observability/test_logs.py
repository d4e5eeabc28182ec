"""What is logged, by whom, and in which form."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from novacron.observability.logs import configure_logging


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    loggers = (logging.getLogger(), logging.getLogger("novacron"))
    before = [(logger, logger.level, list(logger.handlers)) for logger in loggers]
    yield
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers


def test_at_debug_libraries_still_keep_content_to_themselves(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """websockets logs each message and header at debug, on a logger that uvicorn gives it."""
    configure_logging("debug", "json")
    logging.getLogger("uvicorn.error").debug("< TEXT 'a prompt'")
    logging.getLogger("novacron.engine").debug("ours")
    lines = capsys.readouterr().err.splitlines()
    assert [json.loads(line)["message"] for line in lines] == ["ours"]


@pytest.mark.parametrize(("level", "shown"), [("info", 2), ("warning", 1)])
def test_less_severe_lines_are_left_out(
    level: str, shown: int, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(level, "json")
    logging.getLogger("novacron.engine").info("one")
    logging.getLogger("somebody").warning("two")
    assert len(capsys.readouterr().err.splitlines()) == shown


def test_json_is_one_line_whatever_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "json")
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logging.getLogger("novacron").exception("more\nlines")
    [line] = capsys.readouterr().err.splitlines()
    entry = json.loads(line)
    assert entry["message"] == "more\nlines"
    assert "ValueError" in entry["error"]
    assert entry["time"].endswith("Z")


def test_text_has_level_and_logger(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "text")
    logging.getLogger("novacron.engine").warning("look")
    assert "WARNING novacron.engine: look" in capsys.readouterr().err
