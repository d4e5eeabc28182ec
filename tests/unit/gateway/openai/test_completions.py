from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from novacron.testing.fake_engine_client import FakeEngineClient

URL = "/v1/completions"


def chunks_of(text: str) -> list[Any]:
    return [json.loads(line[6:]) for line in text.split("\n\n") if line.startswith("data: {")]


async def test_a_completion(http: httpx2.AsyncClient, client: FakeEngineClient) -> None:
    answer = (await http.post(URL, json={"model": "org/alias", "prompt": "hello"})).json()
    assert answer["object"] == "text_completion"
    assert answer["model"] == "org/alias"
    [choice] = answer["choices"]
    assert choice["text"] == "The answer is 42."
    assert choice["finish_reason"] == "stop"
    assert client.submitted[0].sampling.max_tokens == 16


@pytest.mark.parametrize(
    ("prompt", "num_prompts"),
    [("hello", 1), (["hello", "world"], 2), ([5, 6], 1), ([[5, 6], [7]], 2)],
)
async def test_every_form_of_prompt(
    http: httpx2.AsyncClient, client: FakeEngineClient, prompt: Any, num_prompts: int
) -> None:
    answer = (await http.post(URL, json={"prompt": prompt, "n": 2})).json()
    assert [choice["index"] for choice in answer["choices"]] == list(range(2 * num_prompts))
    prompts = [request.prompt_token_ids for request in client.submitted]
    assert prompts[::2] == prompts[1::2]
    assert answer["usage"]["prompt_tokens"] == sum(map(len, prompts[::2]))


async def test_special_tokens_of_the_prompt_may_stay_text(
    http: httpx2.AsyncClient, client: FakeEngineClient
) -> None:
    end = client.tokenizer.encode("<|im_end|>")[0]
    for parse_special, is_token in ((None, True), (True, True), (False, False)):
        body = {"prompt": ["a<|im_end|>b", "c"], "parse_special": parse_special}
        assert (await http.post(URL, json=body)).status_code == 200
        assert (end in client.submitted[-2].prompt_token_ids) == is_token


@pytest.mark.parametrize("prompt", ["hello world", [5, 6, 7]])
@pytest.mark.parametrize("logprobs", [None, 0, 2])
async def test_echo_streamed_and_whole(
    http: httpx2.AsyncClient, client: FakeEngineClient, prompt: Any, logprobs: int | None
) -> None:
    body = {"prompt": prompt, "echo": True, "max_tokens": 4, "logprobs": logprobs}
    [choice] = (await http.post(URL, json=body)).json()["choices"]
    sent = client.submitted[0].prompt_token_ids
    echoed = prompt if isinstance(prompt, str) else client.tokenizer.decode(sent)
    assert choice["text"].startswith(echoed)
    if logprobs is None:
        assert choice["logprobs"] is None
    else:
        told = choice["logprobs"]
        assert "".join(told["tokens"]) == choice["text"]
        assert told["token_logprobs"][0] is None
        assert told["top_logprobs"][0] is None
        assert len(told["tokens"]) == len(sent) + 4
        assert [choice["text"].find(t, at) for t, at in zip(
            told["tokens"], told["text_offset"], strict=True
        )] == told["text_offset"]  # fmt: skip
    streamed = chunks_of((await http.post(URL, json={**body, "stream": True})).text)
    pieces = [chunk["choices"][0] for chunk in streamed]
    assert "".join(piece["text"] for piece in pieces) == choice["text"]
    if logprobs is not None:
        for key in ("tokens", "text_offset", "token_logprobs"):
            joined = [value for p in pieces if p["logprobs"] for value in p["logprobs"][key]]
            assert joined == choice["logprobs"][key]
    assert pieces[-1]["finish_reason"] == "length"


@pytest.mark.parametrize("stream", [False, True])
async def test_the_prompt_alone_can_be_scored(http: httpx2.AsyncClient, stream: bool) -> None:
    body = {"prompt": "hello world", "echo": True, "max_tokens": 0, "logprobs": 0}
    if not stream:
        answer = (await http.post(URL, json=body)).json()
    else:
        options = {"stream": True, "stream_options": {"include_usage": True}}
        first, *_, answer = chunks_of((await http.post(URL, json={**body, **options})).text)
        answer["choices"] = first["choices"]
    assert answer["choices"][0]["text"] == "hello world"
    assert len(answer["choices"][0]["logprobs"]["tokens"]) == answer["usage"]["prompt_tokens"]
    assert answer["usage"]["completion_tokens"] == 0


async def test_stop_strings_end_the_text_before_them(http: httpx2.AsyncClient) -> None:
    body = {"prompt": "hello", "stop": ["is 4"]}
    [choice] = (await http.post(URL, json=body)).json()["choices"]
    assert choice["text"] == "The answer "
    assert choice["finish_reason"] == "stop"
    assert choice["stop_reason"] == "is 4"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"suffix": "end"}, "suffix"),
        ({"best_of": 3}, "best_of"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": [99999]}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": {"text": "x"}}, "prompt"),
        ({"prompt": "hello " * 3000}, "prompt"),
        ({"prompt": ["x"] * 17, "n": 128}, "prompt"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"logprobs": 21}, "logprobs"),
    ],
)
async def test_what_is_not_supported_is_refused(
    http: httpx2.AsyncClient, client: FakeEngineClient, fields: dict[str, Any], param: str
) -> None:
    response = await http.post(URL, json={"prompt": "hello", **fields})
    error = response.json()["error"]
    assert response.status_code == 400
    assert error["param"].startswith(param), error
    assert client.submitted == []


async def test_best_of_n_is_n(http: httpx2.AsyncClient) -> None:
    body = {"prompt": "hello", "best_of": 2, "n": 2, "suffix": ""}
    assert len((await http.post(URL, json=body)).json()["choices"]) == 2
