"""The chat: lines in, answers out, commands in between."""

from __future__ import annotations

import io
import json

import pytest

from novacron.cli.api_client import ApiClient
from novacron.cli.chat import ChatSession
from novacron.cli.conversation import Conversation


def _chat(novacron, api, *lines: str, args: tuple[str, ...] = ()):
    return novacron("chat", "--url", api.url, *args, input="".join(f"{line}\n" for line in lines))


def _bodies(api) -> list[dict]:
    return [body for path, body in api.asked if path == "/v1/chat/completions"]


def test_each_line_is_a_message_and_history_is_kept(novacron, api) -> None:
    result = _chat(novacron, api, "Capital of France?", "", "Sure?")
    assert result.exit_code == 0
    assert result.stdout == "Paris it is.\nParis it is.\n"
    first, second = _bodies(api)
    assert first["messages"] == [{"role": "user", "content": "Capital of France?"}]
    assert [message["role"] for message in second["messages"]] == ["user", "assistant", "user"]
    assert second["messages"][1]["content"] == "Paris it is."
    assert first["model"] == "tiny"


def test_options_reach_the_request(novacron, api) -> None:
    args = ("--system", "Be brief.", "--temperature", "0.5", "--stop", "END", "--model-name", "m")
    _chat(novacron, api, "Hello", args=(*args, "--api-key", "k"))
    [body] = _bodies(api)
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (body["temperature"], body["stop"], body["model"]) == (0.5, ["END"], "m")
    assert "top_p" not in body
    assert api.keys == {"Bearer k"}


def test_commands(novacron, api, tmp_path) -> None:
    file = tmp_path / "talk.json"
    result = _chat(
        novacron,
        api,
        "/set temperature 0.2",
        "/set top-k 5",
        "/system Be brief.",
        "One",
        "/retry",
        f"/save {file}",
        "/clear",
        "/set temperature",
        "Two",
        f"/load {file}",
        "Three",
        "/stats",
        "/help",
        "/exit",
        "never sent",
    )
    assert result.exit_code == 0, result.output
    one, again, two, three = _bodies(api)
    assert one == again
    assert (one["temperature"], one["top_k"]) == (0.2, 5)
    assert [message["content"] for message in two["messages"]] == ["Be brief.", "Two"]
    assert "temperature" not in two
    assert [message["content"] for message in three["messages"]] == [
        *("Be brief.", "One", "Paris it is.", "Three")
    ]
    assert three["temperature"] == 0.2
    assert "7 prompt tokens (4 cached), 2 generated" in result.stdout
    assert "/retry" in result.stdout
    assert json.loads(file.read_text())["messages"][0]["role"] == "system"


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("/nonsense", "no command /nonsense"),
        ("/retry", "no answer to try again"),
        ("/set warmth 3", "no setting 'warmth'"),
        ("/set temperature hot", "temperature must be a number"),
        ("/set top_k 1.5", "top_k must be a whole number"),
        ("/save", "Name a file"),
        ("/save /absent/folder/file", "cannot be written"),
        ("/load /absent/file", "cannot be read"),
        ("/load /etc/hostname", "not a saved chat"),
    ],
)
def test_a_wrong_command_says_so_and_the_chat_goes_on(novacron, api, line, complaint) -> None:
    result = _chat(novacron, api, line, "Hello")
    assert result.exit_code == 1
    assert complaint in result.stderr
    assert result.stdout == "Paris it is.\n"


def test_a_failed_answer_is_forgotten(novacron, api) -> None:
    answers = [
        (503, {"error": {"message": "the queue is full"}}),
        api.routes["POST /v1/chat/completions"],
    ]
    api.routes["POST /v1/chat/completions"] = lambda body: answers.pop(0)
    result = _chat(novacron, api, "One", "Two")
    assert result.exit_code == 1
    assert "the queue is full" in result.stderr
    assert [message["content"] for message in _bodies(api)[1]["messages"]] == ["Two"]


class _SlowClient(ApiClient):
    """Ctrl-C is pressed after the first word of its first answer."""

    interrupted = False

    def stream(self, path, body):
        yield {"choices": [{"delta": {"content": "Well"}}]}
        if not self.interrupted:
            self.interrupted = True
            raise KeyboardInterrupt
        yield {"choices": [{"delta": {"content": " done"}}]}


def _session(
    monkeypatch, lines: list[str | type[BaseException]]
) -> tuple[ChatSession, Conversation]:
    def read(prompt: str) -> str:
        line = lines.pop(0)
        if isinstance(line, str):
            return line
        raise line

    monkeypatch.setattr("builtins.input", read)
    conversation = Conversation()
    client = _SlowClient("http://127.0.0.1:9", None)
    return ChatSession(client, "tiny", conversation, is_terminal=True), conversation


def test_ctrl_c_stops_the_answer_not_the_chat(monkeypatch, capsys) -> None:
    session, conversation = _session(monkeypatch, ["One", KeyboardInterrupt, "Two", EOFError])
    assert session.run() == 0
    assert [turn["content"] for turn in conversation.turns] == ["One", "Well", "Two", "Well done"]
    output = capsys.readouterr()
    assert "Stopped." in output.err
    assert "Ctrl-D leaves" in output.err


def test_ctrl_c_ends_a_chat_without_a_terminal(monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("One\nTwo\n"))
    client = _SlowClient("http://127.0.0.1:9", None)
    session = ChatSession(client, "tiny", Conversation(), is_terminal=False)
    with pytest.raises(KeyboardInterrupt):
        session.run()


def test_no_server(novacron) -> None:
    result = novacron("chat", "--url", "http://127.0.0.1:9", input="Hello\n")
    assert result.exit_code == 1
    assert "novacron serve" in result.output


def test_no_such_model(novacron) -> None:
    result = novacron("chat", "--model", "/absent/folder", input="Hello\n")
    assert result.exit_code == 1
    assert "'/absent/folder' is no folder" in result.output


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (("--model", "x", "--url", "http://127.0.0.1:9"), "exclude each other"),
        (("--dtype", "float32"), "--dtype needs --model"),
    ],
)
def test_options_that_do_not_go_together(novacron, args, complaint) -> None:
    result = novacron("chat", *args, input="")
    assert result.exit_code == 2
    assert complaint in result.output
