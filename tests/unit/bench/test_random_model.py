from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from novacron.bench.cli import bench
from novacron.bench.model_shapes import SHAPES, choose_shape
from novacron.bench.random_model import make_model
from novacron.bench.random_tokenizer import SPECIAL_TOKENS, build_tokenizer
from novacron.errors import ConfigError
from novacron.models.checkpoint import Checkpoint


def _weights(folder: Path) -> dict[str, bytes]:
    checkpoint = Checkpoint(folder)
    return {
        name: checkpoint.read(name, ()).float().numpy().tobytes()
        for name, _ in SHAPES["tiny"].tensors()
    }


@pytest.mark.parametrize(
    ("name", "millions"), [("0.2b", 201), ("1.1b", 1100), ("3.2b", 3213), ("8b", 8030)]
)
def test_shapes_have_the_size_of_their_name(name: str, millions: int) -> None:
    assert round(SHAPES[name].num_parameters / 1e6) == millions


def test_a_model_depends_on_the_seed_and_not_on_its_files(tmp_path: Path) -> None:
    for name, seed, shard_bytes in (("a", 0, 2**30), ("b", 0, 50_000), ("c", 1, 2**30)):
        make_model(tmp_path / name, SHAPES["tiny"], seed=seed, shard_bytes=shard_bytes)
    assert len(list((tmp_path / "a").glob("*.safetensors"))) == 1
    assert len(list((tmp_path / "b").glob("*.safetensors"))) > 2
    assert _weights(tmp_path / "a") == _weights(tmp_path / "b")
    assert _weights(tmp_path / "a") != _weights(tmp_path / "c")


def test_an_existing_model_is_not_written_over(tmp_path: Path) -> None:
    make_model(tmp_path, SHAPES["tiny"])
    with pytest.raises(ConfigError, match="holds a model already"):
        make_model(tmp_path, SHAPES["tiny"], seed=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 0}, "hidden_size is 0"),
        ({"num_key_value_heads": 3}, "num_attention_heads is 4: give a multiple"),
        ({"head_dim": 15}, "need an even one"),
    ],
)
def test_impossible_shapes_are_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        choose_shape("tiny", changes)


@pytest.mark.parametrize("vocab_size", [261, 1000, 32_000])
def test_every_token_is_a_text_of_its_own(vocab_size: int) -> None:
    tokenizer = build_tokenizer(vocab_size)
    assert tokenizer.get_vocab_size() == vocab_size
    assert len(tokenizer.get_vocab()) == vocab_size
    text = "the caf\u00e9 \U0001f642\n\tis open"
    assert tokenizer.decode(tokenizer.encode(text).ids) == text
    last = tokenizer.id_to_token(vocab_size - 1)
    assert tokenizer.decode([vocab_size - 1]) in (last.replace("\u0120", " "), "\ufffd")


def test_the_last_word_of_the_vocabulary_can_be_reached() -> None:
    tokenizer = build_tokenizer(1000)
    last = tokenizer.decode([999])
    assert tokenizer.encode(last).ids == [999]


def test_a_vocabulary_holds_all_bytes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"take {256 + len(SPECIAL_TOKENS)} tokens"):
        build_tokenizer(260)


def test_make_model_takes_sizes_as_options(tmp_path: Path) -> None:
    command = ["make-model", str(tmp_path / "m"), "--shape", "tiny", "--num-hidden-layers", "1"]
    outcome = CliRunner().invoke(bench, command, catch_exceptions=False)
    assert outcome.exit_code == 0
    assert "bfloat16" in outcome.stderr
    names = list(Checkpoint(tmp_path / "m").names)
    assert sum("q_proj" in name for name in names) == 1
