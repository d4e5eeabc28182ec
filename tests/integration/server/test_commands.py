"""The commands that talk to a running server, as users run them."""

from __future__ import annotations

import json
from pathlib import Path

from novacron.testing.server_process import ServerProcess, run_novacron

QUESTIONS = ("What is the capital of France?", "What is 3 plus 4?", "Who are you?")


def test_validate_finds_the_server_in_order(server: ServerProcess) -> None:
    run = run_novacron("validate", server.url)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Paris" in run.stdout


def test_validate_fails_where_no_server_is() -> None:
    run = run_novacron("validate", "http://127.0.0.1:9")
    assert run.returncode == 1
    assert "No server answers" in run.stdout


def test_complete_prints_what_the_api_answers(server: ServerProcess) -> None:
    question = QUESTIONS[0]
    answer = server.post(
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": question}], "temperature": 0},
    ).json()
    run = run_novacron("complete", "--url", server.url, "--chat", "--temperature", "0", question)
    assert run.returncode == 0, run.stderr
    assert run.stdout == answer["choices"][0]["message"]["content"] + "\n"


def test_complete_reads_its_prompt_from_a_pipe(server: ServerProcess) -> None:
    arguments = ("complete", "--url", server.url, "--temperature", "0", "--max-tokens", "6")
    piped = run_novacron(*arguments, stdin="The capital of France is")
    given = run_novacron(*arguments, "The capital of France is")
    assert piped.returncode == given.returncode == 0
    assert piped.stdout == given.stdout != "\n"


def test_complete_says_why_it_was_refused(server: ServerProcess) -> None:
    run = run_novacron("complete", "--url", server.url, "--model-name", "no-such", "Hello")
    assert run.returncode == 1
    assert run.stderr.startswith("Error: The model 'no-such' is not served here.")


def test_run_batch_answers_all_and_goes_on_where_it_was(
    server: ServerProcess, tmp_path: Path
) -> None:
    asked, answered = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    asked.write_text("".join(json.dumps(line) + "\n" for line in batch_lines()))
    arguments = ("run-batch", "--url", server.url, "-i", str(asked), "-o", str(answered))
    run = run_novacron(*arguments)
    lines = {
        entry["custom_id"]: entry for entry in map(json.loads, answered.read_text().splitlines())
    }
    assert run.returncode == 1  # because one request is wrong
    assert "4 answered, 1 failed, 0 skipped" in run.stderr
    assert set(lines) == {"chat-0", "chat-1", "chat-2", "vector", "wrong"}
    content = lines["chat-0"]["response"]["body"]["choices"][0]["message"]["content"]
    assert "Paris" in content
    assert len(lines["vector"]["response"]["body"]["data"]) == 1
    assert lines["wrong"]["response"]["status_code"] == 400

    asked.write_text("".join(json.dumps(line) + "\n" for line in batch_lines()[:-1]))
    again = run_novacron(*arguments)
    assert again.returncode == 0
    assert "all 4 requests are answered" in again.stdout


def batch_lines() -> list[dict[str, object]]:
    chats = [
        line(
            f"chat-{number}",
            "chat/completions",
            {"messages": [{"role": "user", "content": question}], "temperature": 0},
        )
        for number, question in enumerate(QUESTIONS)
    ]
    return [
        *chats,
        line("vector", "embeddings", {"input": "Paris"}),
        line("wrong", "completions", {"prompt": [1] * 5000}),
    ]


def line(custom_id: str, path: str, body: dict[str, object]) -> dict[str, object]:
    return {"custom_id": custom_id, "method": "POST", "url": f"/v1/{path}", "body": body}
