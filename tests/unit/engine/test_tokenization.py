"""Loading: which files count, and what is said about bad ones. Encoding and decoding."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Reference
from tokenizers import decoders, models

from novacron.engine.tokenization import Tokenizer
from novacron.errors import InvalidRequest, ModelLoadError
from novacron.testing.tiny_tokenizers import byte_level, sentencepiece_style, write_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "model", byte_level())


def test_eos_ids_are_the_union_of_all_files(tmp_path: Path) -> None:
    folder = write_folder(
        tmp_path,
        byte_level(),
        tokenizer_config={"eos_token": "<|im_end|>"},
        config={"eos_token_id": 1},
        generation_config={"eos_token_id": [2, 1]},
    )
    assert Tokenizer.load(folder).eos_token_ids == (2, 1, 3)


def test_eos_of_a_nested_text_config_and_of_token_objects(tmp_path: Path) -> None:
    folder = write_folder(
        tmp_path,
        byte_level(),
        tokenizer_config={"eos_token": {"content": "<|im_end|>", "special": True}},
        config={"text_config": {"eos_token_id": [7]}},
        generation_config={"eos_token_id": -1},
    )
    tokenizer = Tokenizer.load(folder)
    assert tokenizer.eos_token_ids == (7, 3)
    assert tokenizer.bos_token_id == 0


def test_a_lone_tokenizer_json_is_enough(tmp_path: Path) -> None:
    byte_level().save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.eos_token_ids == ()
    assert tokenizer.bos_token_id is None
    assert not tokenizer.has_chat_template
    assert tokenizer.decode(tokenizer.encode("hello world")) == "hello world"


def test_legacy_special_tokens_map_counts(tmp_path: Path) -> None:
    byte_level().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "special_tokens_map.json").write_text('{"eos_token": {"content": "</s>"}}')
    assert Tokenizer.load(tmp_path).eos_token_ids == (1,)


def test_named_tokens_are_special_even_if_plain_in_the_file(tmp_path: Path) -> None:
    vocabulary = {"<s>": 0, "</s>": 1, "hello": 2, "<unk>": 3}
    reference = Reference(models.WordLevel(vocabulary, "<unk>"))
    write_folder(tmp_path, reference, tokenizer_config={"pad_token": "<not there>"})
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.special_token_ids == {0, 1}
    assert tokenizer.decode([0, 2, 1]) == "hello"
    assert tokenizer.encode("hello</s>") == [2, 1]
    assert tokenizer.vocab_size == 4


@pytest.mark.parametrize("other", ["tokenizer.model", "vocab.json", "tekken.json"])
def test_other_vocabulary_formats_are_named(tmp_path: Path, other: str) -> None:
    (tmp_path / other).write_bytes(b"\x00")
    with pytest.raises(ModelLoadError, match=rf"{other} but no tokenizer\.json.*Convert"):
        Tokenizer.load(tmp_path)


def test_no_tokenizer_at_all(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"tokenizer\.json is missing.*--tokenizer"):
        Tokenizer.load(tmp_path)
    with pytest.raises(ModelLoadError, match=r"absent is not a folder"):
        Tokenizer.load(tmp_path / "absent")


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b'{"model": {"type": "BPE"}}', b"\xff\xfe"])
def test_a_broken_tokenizer_json_is_named(folder: Path, content: bytes) -> None:
    (folder / "tokenizer.json").write_bytes(content)
    with pytest.raises(
        ModelLoadError, match=r"tokenizer\.json (is not valid|cannot be read)|valid"
    ):
        Tokenizer.load(folder)


@pytest.mark.parametrize("name", ["tokenizer_config.json", "config.json", "generation_config.json"])
@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_broken_config_is_named(folder: Path, name: str, content: str) -> None:
    (folder / name).write_text(content)
    with pytest.raises(ModelLoadError, match=name.replace(".", r"\.")):
        Tokenizer.load(folder)


@pytest.mark.parametrize("value", ["1", [1, "2"], True, 1.5])
def test_a_wrong_eos_is_named(folder: Path, value: object) -> None:
    (folder / "config.json").write_text(json.dumps({"eos_token_id": value}))
    with pytest.raises(ModelLoadError, match=r"config\.json: eos_token_id"):
        Tokenizer.load(folder)


def test_unsupported_decoder_is_named(tmp_path: Path) -> None:
    tokenizer = Reference(models.WordLevel({"a": 0}, unk_token="a"))
    tokenizer.decoder = decoders.CTC()
    with pytest.raises(ModelLoadError, match="decoder 'CTC' is not supported"):
        Tokenizer.load(write_folder(tmp_path, tokenizer))


def test_prompts_are_never_truncated_or_padded(tmp_path: Path) -> None:
    reference = byte_level()
    full = reference.encode("hello world, this is a test").ids
    reference.enable_truncation(2)
    reference.enable_padding(length=64)
    assert Tokenizer.load(write_folder(tmp_path, reference)).encode(
        "hello world, this is a test"
    ) == full  # fmt: skip


def test_lone_surrogates_are_refused(folder: Path) -> None:
    with pytest.raises(InvalidRequest, match="not valid Unicode"):
        Tokenizer.load(folder).encode("ab\ud800")


def test_token_bytes_are_parts_of_characters(folder: Path) -> None:
    tokenizer = Tokenizer.load(folder)
    ids = tokenizer.encode("\U0001f642")
    assert b"".join(map(tokenizer.token_bytes, ids)) == "\U0001f642".encode()
    assert [tokenizer.token_text(token_id) for token_id in ids] == ["\ufffd"] * 4
    assert tokenizer.token_bytes(0) == b"<s>"
    assert tokenizer.token_bytes(10**6) == b""


def test_token_bytes_keep_the_space_before_a_word(tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(write_folder(tmp_path, sentencepiece_style()))
    assert [tokenizer.token_text(token_id) for token_id in tokenizer.encode("hello world")] == [
        " hello",
        " world",
    ]
    assert tokenizer.decode(tokenizer.encode("hello world")) == "hello world"


def test_special_tokens_can_be_shown(folder: Path) -> None:
    tokenizer = Tokenizer.load(folder)
    ids = [0, *tokenizer.encode("hello"), 1]
    assert tokenizer.decode(ids) == "hello"
    assert tokenizer.decode(ids, skip_special_tokens=False) == "<s>hello</s>"


@pytest.mark.parametrize(
    ("decoder", "vocabulary"),
    [
        (None, ["hello", "world"]),
        (decoders.Metaspace(), ["\u2581hello", "\u2581\u2581world", "\u2581"]),
        (decoders.WordPiece(), ["hello", "##world", "wide", "."]),
    ],
)
def test_rarer_decoders_agree_with_the_library(tmp_path: Path, decoder, vocabulary) -> None:
    reference = Reference(
        models.WordLevel({token: place for place, token in enumerate(vocabulary)}, "hello")
    )
    reference.decoder = decoder
    tokenizer = Tokenizer.load(write_folder(tmp_path, reference))
    ids = [*range(len(vocabulary)), *range(len(vocabulary))]
    for start in range(len(vocabulary)):
        assert tokenizer.decode(ids[start:]) == reference.decode(ids[start:])


def test_importing_brings_neither_torch_nor_transformers() -> None:
    program = (
        "import sys, novacron.engine.detokenization as _;"
        "print([m for m in ('torch', 'transformers', 'numpy') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr
