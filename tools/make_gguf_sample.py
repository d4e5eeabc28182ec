"""Write tests/data/gguf: a tiny model that llama.cpp itself rounded, and what it answers with it.

    PYTHONPATH=src LLAMA_CPP_LIB_PATH=.venv-peers/llama.cpp/bin .venv-peers/bin/python \\
        tools/make_gguf_sample.py

Needs the environment that `make bench-peers` installs. The model has random weights and rows of
256 values, which the K formats need, except where it has fewer: there llama.cpp falls back to
others, as it does in real files.

The answers are what llama.cpp computes with the rounded weights that it has turned back to float32,
and with a float32 KV cache. With the rounded file itself it would round the inputs of products too,
to eight bits, which we do not.
"""

from __future__ import annotations

import json
import random
import tempfile
from pathlib import Path
from typing import Any

import llama_cpp

from novacron.testing.gguf_models import sentencepiece_pieces, write_gguf
from novacron.testing.tiny_models import VOCAB_SIZE, make_tiny_model
from novacron.testing.tiny_tokenizers import sentencepiece_style

TARGET = Path(__file__).resolve().parents[1] / "tests" / "data" / "gguf"
SIZES: dict[str, Any] = {
    "hidden_size": 256,
    "intermediate_size": 32,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "num_hidden_layers": 2,
}
ROUNDED = {
    "q4_k_m": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M,
    "q2_k": llama_cpp.LLAMA_FTYPE_MOSTLY_Q2_K,
}
SMALL = {  # of a model of one layer whose vocabulary is one of SentencePiece, and serves twice
    "q4_1": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_1,
    "q5_k_m": llama_cpp.LLAMA_FTYPE_MOSTLY_Q5_K_M,
    "q6_k": llama_cpp.LLAMA_FTYPE_MOSTLY_Q6_K,
    "iq4_xs": llama_cpp.LLAMA_FTYPE_MOSTLY_IQ4_XS,
}
NUM_NEW = 24
TEXTS = ("The quick brown fox", "  def main():\n\n    x = 12345", "na\u00efve caf\u00e9 don't")


def main() -> None:
    TARGET.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = make_tiny_model("llama", Path(name) / "model", **SIZES)
        source = write_gguf(folder, Path(name) / "model.gguf")
        for label, kind in ROUNDED.items():
            write_sample(source, label, kind, Path(name))
        for label, kind in SMALL.items():
            write_sample(small_model(Path(name)), label, kind, Path(name))
        source = mixture(Path(name))
        write_sample(source, "mixtral_q8_0", llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0, Path(name))


def small_model(base: Path) -> Path:
    source = base / "small.gguf"
    if not source.exists():
        tokenizer = sentencepiece_style()
        folder = make_tiny_model(
            "llama", base / "small", **SIZES | {"num_hidden_layers": 1},
            vocab_size=tokenizer.get_vocab_size(), tie_word_embeddings=True,
        )  # fmt: skip
        write_gguf(folder, source, tokenizer=sentencepiece_pieces(tokenizer))
    return source


def mixture(base: Path) -> Path:
    folder = make_tiny_model(
        "mixtral", base / "mixtral", hidden_size=64, intermediate_size=64, num_hidden_layers=2
    )
    return write_gguf(folder, base / "mixtral.gguf")


def write_sample(source: Path, label: str, kind: int, base: Path) -> None:
    """The file and what is answered with it, beside each other."""
    target, plain = TARGET / f"{label}.gguf", base / f"{label}.gguf"
    convert(source, target, kind)
    convert(target, plain, llama_cpp.LLAMA_FTYPE_ALL_F32)
    (TARGET / f"{label}.json").write_text(json.dumps(answers(plain), indent=1) + "\n")


def convert(source: Path, target: Path, kind: int) -> None:
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread, params.allow_requantize = kind, 1, True
    if llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), params):
        raise SystemExit(f"llama.cpp could not write {target}.")


def answers(path: Path) -> dict[str, object]:
    """What llama.cpp computes: tokens of texts, and those that it finds likeliest after prompts."""
    llama = llama_cpp.Llama(
        str(path), n_ctx=128, n_threads=1, verbose=False, logits_all=True, flash_attn=False,
        type_k=llama_cpp.GGML_TYPE_F32, type_v=llama_cpp.GGML_TYPE_F32,
    )  # fmt: skip
    return {
        "llama_cpp_python": llama_cpp.__version__,
        "texts": {text: llama.tokenize(text.encode(), special=True) for text in TEXTS},
        "greedy": [{"prompt": prompt, "new": greedy(llama, prompt)} for prompt in prompts()],
    }


def prompts() -> list[list[int]]:
    source = random.Random(0)
    return [source.choices(range(5, VOCAB_SIZE), k=length) for length in (3, 40, 17)]


def greedy(llama: llama_cpp.Llama, prompt: list[int]) -> list[int]:
    llama.reset()
    token_ids = list(prompt)
    for _ in range(NUM_NEW):
        llama.eval(token_ids[llama.n_tokens :])
        token_ids.append(int(llama.scores[llama.n_tokens - 1].argmax()))
    return token_ids[len(prompt) :]


if __name__ == "__main__":
    main()
