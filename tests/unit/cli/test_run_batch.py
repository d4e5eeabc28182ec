"""A batch: every request answered once, failures told, and a second run goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from novacron.cli import run_batch
from novacron.cli.batch_file import BatchResult, keep_successes, read_requests
from novacron.errors import InvalidRequest


def _line(custom_id: str, url: str = "/v1/completions", **body: object) -> str:
    body = {"model": "tiny", "prompt": custom_id, **body}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": body})


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "in.jsonl", tmp_path / "out.jsonl"


@pytest.fixture
def run(novacron, api, files):
    def run(*custom_ids: str, args: tuple[str, ...] = ()):
        files[0].write_text("\n".join(map(_line, custom_ids)) + "\n")
        paths = ("-i", str(files[0]), "-o", str(files[1]))
        return novacron("run-batch", "--url", api.url, *paths, *args)

    return run


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch) -> list[float]:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(run_batch.asyncio, "sleep", sleep)
    return waits


def _answer(body) -> tuple[int, object]:
    if body["prompt"].startswith("bad"):
        return 400, {"error": {"message": "no"}}
    usage = {"completion_tokens": 3}
    return 200, {"choices": [{"text": body["prompt"].upper()}], "usage": usage}


def _output(files) -> dict[str, dict]:
    entries = [json.loads(line) for line in files[1].read_text().splitlines()]
    assert len({entry["custom_id"] for entry in entries}) == len(entries)
    return {entry["custom_id"]: entry for entry in entries}


def test_every_request_is_answered_once(run, api, files) -> None:
    api.routes["POST /v1/completions"] = _answer
    result = run(*(f"r{number}" for number in range(40)), args=("--max-concurrency", "7"))
    assert result.exit_code == 0, result.output
    output = _output(files)
    assert len(output) == 40
    assert output["r3"]["response"]["body"]["choices"][0]["text"] == "R3"
    assert output["r3"]["response"]["status_code"] == 200
    assert output["r3"]["error"] is None
    assert "40 answered, 0 failed, 0 skipped" in result.stderr
    assert "40/40 done" in result.stderr


def test_a_failure_is_told_and_tried_again_next_time(run, api, files) -> None:
    api.routes["POST /v1/completions"] = _answer
    result = run("a", "bad", "c")
    assert result.exit_code == 1
    assert _output(files)["bad"]["error"]["message"] == "no"
    assert _output(files)["bad"]["response"]["status_code"] == 400
    with files[1].open("a") as output:
        output.write('{"custom_id": "d", "response": {"status_co')  # a crash while writing
    api.asked.clear()
    api.routes["POST /v1/completions"] = lambda body: (200, {"choices": []})
    result = run("a", "bad", "c", "d")
    assert result.exit_code == 0
    assert "2 answered, 0 failed, 2 skipped" in result.stderr
    asked = [body["prompt"] for path, body in api.asked if path == "/v1/completions"]
    assert sorted(asked) == ["bad", "d"]
    assert sorted(_output(files)) == ["a", "bad", "c", "d"]
    assert "Nothing to do" in run("a", "bad").output


def test_waits_for_a_busy_server(run, api, no_waiting) -> None:
    answers = [(503, {"error": {"message": "full"}}), (429, {}), (200, {"choices": []})]
    api.headers = {"retry-after": "5"}
    api.routes["POST /v1/completions"] = lambda body: answers.pop(0)
    assert run("a").exit_code == 0
    assert no_waiting == [5.0, 10.0]


def test_gives_up_on_a_server_that_stays_busy(run, api, files, no_waiting) -> None:
    api.routes["POST /v1/completions"] = (503, {"error": {"message": "full"}})
    assert run("a").exit_code == 1
    assert _output(files)["a"]["error"]["message"] == "full"
    assert len(no_waiting) == 5


def test_nonsense_from_the_server_is_an_error_of_the_line(run, api, files) -> None:
    api.routes["POST /v1/completions"] = (200, "<html>")
    assert run("a").exit_code == 1
    assert "no JSON object" in _output(files)["a"]["error"]["message"]


def test_no_server_at_all_is_told_once(novacron, files) -> None:
    files[0].write_text(_line("a"))
    paths = ("-i", str(files[0]), "-o", str(files[1]))
    result = novacron("run-batch", "--url", "http://127.0.0.1:9", *paths)
    assert result.exit_code == 1
    assert "No server answers" in result.output


@pytest.mark.parametrize(
    ("second", "complaint"),
    [
        ("{", "Expecting"),
        ("[]", "needs custom_id"),
        ('{"custom_id": "b", "url": "/v1/completions"}', "needs custom_id"),
        (_line("b", url="/v1/audio"), r"url is '/v1/audio'"),
        (_line("b").replace("POST", "GET"), "method is 'GET'"),
        (_line("b", stream=True), "stream must be off"),
        (_line("a"), "'a' was used before"),
    ],
)
def test_a_wrong_line_is_named_before_work_begins(files, second: str, complaint: str) -> None:
    files[0].write_text(f"{_line('a')}\n\n{second}\n")
    with pytest.raises(InvalidRequest, match=rf"line 3: .*{complaint}"):
        read_requests(files[0])


def test_only_whole_successes_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    assert keep_successes(path) == set()
    good = BatchResult("good", 200, {"choices": []}).to_line()
    lines = [
        good,
        BatchResult("refused", 400, {}, "no").to_line(),
        BatchResult("lost", error="gone").to_line(),
        "not json\n",
        BatchResult("cut", 200, {}).to_line().rstrip("\n"),
    ]
    path.write_text("".join(lines))
    assert keep_successes(path) == {"good"}
    assert path.read_text() == good
    assert list(tmp_path.iterdir()) == [path]
