from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.bench.corpus import cut_windows, demo_documents, digest, file_documents
from novacron.demo import bundled_model_path
from novacron.demo.tasks import TASKS, held_out_examples
from novacron.engine.tokenization import Tokenizer
from novacron.errors import ConfigError


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.load(bundled_model_path())


def test_chats_are_of_all_tasks_and_only_their_answers_are_judged(tokenizer: Tokenizer) -> None:
    documents = demo_documents(tokenizer, 2 * len(TASKS) + 1, seed=0)
    assert len(documents) == 2 * len(TASKS) + 1
    second_turn = documents[len(TASKS) : 2 * len(TASKS)]
    for task, document in zip(TASKS, second_turn, strict=True):
        example = held_out_examples(task, 3, seed=0)[1]
        judged = document.token_ids[document.first_scored :]
        assert tokenizer.decode(judged, skip_special_tokens=False) == f"{example.answer}<|end|>"
        before = tokenizer.decode(
            document.token_ids[: document.first_scored], skip_special_tokens=False
        )
        assert before.endswith(f"{example.messages[-1].content}<|end|><|assistant|>")


def test_the_corpus_is_the_same_every_time_and_its_digest_tells(tokenizer: Tokenizer) -> None:
    first, again, other = (demo_documents(tokenizer, 40, seed=seed) for seed in (0, 0, 1))
    assert digest(first) == digest(again) != digest(other)


@given(st.integers(0, 60), st.integers(2, 20), st.integers(1, 9))
def test_windows_are_a_text_cut_up(num_tokens: int, window: int, count: int) -> None:
    text = list(range(num_tokens))
    windows = cut_windows(text, window, count)
    joined = [token for one in windows for token in one.token_ids]
    assert joined == text[: len(joined)]
    assert len(joined) >= min(num_tokens, window * count) - 1  # a single last token is left out
    assert all(2 <= len(one.token_ids) <= window and one.first_scored == 1 for one in windows)


def test_a_text_that_cannot_be_used_is_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.txt is no text"):
        file_documents(tokenizer, tmp_path / "missing.txt", window=8, count=1)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="no text"):
        file_documents(tokenizer, tmp_path / "binary", window=8, count=1)
    (tmp_path / "empty").write_text("")
    with pytest.raises(ConfigError, match="fewer than 2 tokens"):
        file_documents(tokenizer, tmp_path / "empty", window=8, count=1)
