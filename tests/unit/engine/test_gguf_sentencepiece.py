"""SentencePiece tokenizers of GGUF files, against tokenizers and transformers."""

from __future__ import annotations

from pathlib import Path

import gguf
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.convert_slow_tokenizer import generate_merges

from novacron.engine.gguf_sentencepiece import merges_of
from novacron.engine.tokenization import Tokenizer
from novacron.testing.gguf_models import sentencepiece_pieces, write_gguf
from novacron.testing.tiny_models import make_tiny_model
from novacron.testing.tiny_tokenizers import sentencepiece_style, write_folder

PIECES = st.dictionaries(
    st.text("ab\u2581", min_size=1, max_size=4), st.integers(-50, 0), min_size=1, max_size=20
)


@given(PIECES)
def test_merges_are_those_that_transformers_makes_of_scores(pieces: dict[str, int]) -> None:
    """In any order, as far as they make pieces of one score."""
    scores = {piece: float(score) for piece, score in pieces.items()}
    found = merges_of(scores)
    theirs = generate_merges({piece: place for place, piece in enumerate(scores)}, scores)
    assert sorted(found) == sorted(theirs)
    made = [scores[first + second] for first, second in found]
    assert made == sorted(made, reverse=True)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, Tokenizer]:
    base = tmp_path_factory.mktemp("sentencepiece")
    reference = sentencepiece_style()
    model = make_tiny_model(
        "llama", base / "model", num_hidden_layers=1, vocab_size=reference.get_vocab_size()
    )
    file = write_gguf(model, base / "m.gguf", tokenizer=sentencepiece_pieces(reference))
    return Tokenizer.load(file), Tokenizer.load(write_folder(base / "folder", reference))


@given(text=st.text() | st.text("the quick\u00e9 <s>"))
def test_the_same_tokens_as_tokenizers(both: tuple[Tokenizer, Tokenizer], text: str) -> None:
    found, expected = both
    for parse_special in (True, False):
        ids = expected.encode(text, add_special_tokens=False, parse_special=parse_special)
        given = found.encode(text, add_special_tokens=False, parse_special=parse_special)
        assert given == ids
        assert found.decode(ids) == expected.decode(ids)


def test_texts_begin_as_the_file_says(both: tuple[Tokenizer, Tokenizer], tmp_path: Path) -> None:
    found, _ = both
    assert found.encode("the")[0] == found.bos_token_id

    def also(writer: gguf.GGUFWriter) -> None:
        writer.add_add_bos_token(False)
        writer.add_add_space_prefix(False)

    reference = sentencepiece_style()
    model = make_tiny_model(
        "llama", tmp_path / "model", num_hidden_layers=1, vocab_size=reference.get_vocab_size()
    )
    file = write_gguf(
        model, tmp_path / "m.gguf", tokenizer=sentencepiece_pieces(reference), also=also
    )
    bare = Tokenizer.load(file)
    assert bare.encode(" the") == found.encode("the")[1:]
    assert bare.decode(bare.encode(" the")) == " the"


def test_what_no_piece_stands_for_is_bytes(both: tuple[Tokenizer, Tokenizer]) -> None:
    found, _ = both
    ids = found.encode("\u4f60", add_special_tokens=False)
    assert len(ids) == 1 + 3  # the space before, then its bytes
    assert found.decode(ids) == "\u4f60"
