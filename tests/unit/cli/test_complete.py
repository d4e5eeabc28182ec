"""One prompt, from an argument or a pipe."""

from __future__ import annotations

import pytest

from novacron.cli import complete


def test_streams_the_continuation(novacron, api) -> None:
    result = novacron("complete", "--url", api.url, "--max-tokens", "5", "Arthur")
    assert (result.exit_code, result.stdout, result.stderr) == (0, " was a king.\n", "")
    path, body = api.asked[-1]
    assert path == "/v1/completions"
    assert (body["prompt"], body["max_tokens"], body["stream"]) == ("Arthur", 5, True)


@pytest.mark.parametrize("args", [(), ("-",)])
def test_reads_a_pipe(novacron, api, args) -> None:
    novacron("complete", "--url", api.url, *args, input="Arthur\nand\n")
    assert api.asked[-1][1]["prompt"] == "Arthur\nand\n"


def test_as_a_chat_with_statistics(novacron, api) -> None:
    result = novacron("complete", "--url", api.url, "--chat", "--stats", "Capital?")
    assert result.stdout == "Paris it is.\n"
    assert "7 prompt tokens (4 cached), 2 generated" in result.stderr
    assert api.asked[-1][1]["messages"] == [{"role": "user", "content": "Capital?"}]


def test_a_terminal_is_not_read(novacron, api, monkeypatch) -> None:
    monkeypatch.setattr(complete, "_is_terminal", lambda: True)
    result = novacron("complete", "--url", api.url)
    assert result.exit_code == 2
    assert "Give a PROMPT" in result.output


def test_refusal(novacron, api) -> None:
    api.routes["POST /v1/completions"] = (400, {"error": {"message": "too long"}})
    result = novacron("complete", "--url", api.url, "Arthur")
    assert result.exit_code == 1
    assert "Error: too long" in result.stderr


def test_interrupted(novacron, api, monkeypatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("novacron.cli.generation.Generation.__iter__", interrupt)
    assert novacron("complete", "--url", api.url, "Arthur").exit_code == 130
