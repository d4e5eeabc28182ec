"""LLM: offline generation, chat and embeddings over a tiny model."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from novacron import LLM, SamplingParams
from novacron.errors import ConfigError, InvalidRequest, ModelLoadError, PromptTooLong
from novacron.records.request import FinishReason
from novacron.testing.tiny_models import make_tiny_model

GREEDY = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLM]:
    folder: Path = make_tiny_model("llama", tmp_path_factory.mktemp("llama"))
    llm = LLM(str(folder), dtype="float32", num_threads=1, max_num_seqs=4)
    yield llm
    llm.close()


def test_outputs_come_in_the_order_of_the_prompts(llm: LLM) -> None:
    prompts = ["The quick", "Paris is", "0123456789", "def main", "Hello", "lazy dog"]
    together = [output.text for output in llm.generate(prompts, GREEDY)]
    alone = [llm.generate(prompt, GREEDY)[0].text for prompt in prompts]
    assert together == alone


def test_n_completions_stand_side_by_side_and_differ(llm: LLM) -> None:
    sampling = SamplingParams(temperature=1.0, seed=3, max_tokens=12, ignore_eos=True)
    outputs = llm.generate(["The quick", "Paris"], sampling, n=2)
    texts = [output.text for output in outputs]
    assert len(set(texts)) == 4
    assert [output.text for output in llm.generate("Paris", sampling, n=2)] == texts[2:]


def test_stop_strings_end_the_text(llm: LLM) -> None:
    whole = llm.generate("The quick", GREEDY)[0].text
    stop = whole[len(whole) // 2 :][:2]
    sampling = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True, stop=(stop,))
    [output] = llm.generate("The quick", sampling)
    assert output.text == whole[: whole.index(stop)]
    assert (output.finish_reason, output.stop_reason) == (FinishReason.STOP, stop)
    assert llm.generate("The quick", GREEDY)[0].text == whole  # nothing is left of the one before


def test_chat_uses_the_template(llm: LLM) -> None:
    messages = [{"role": "user", "content": "Hello"}]
    [output] = llm.chat(messages, GREEDY)
    assert output.num_prompt_tokens == len(llm.tokenizer.apply_chat_template(messages))
    assert len(llm.chat([messages, messages], GREEDY)) == 2


def test_embeddings_have_unit_length(llm: LLM) -> None:
    for pooling in ("mean", "last"):
        vectors = llm.embed(["The quick", "brown fox"], pooling=pooling)  # type: ignore[arg-type]
        for vector in vectors:
            assert sum(x * x for x in vector) == pytest.approx(1.0, abs=1e-5)
        assert vectors[0] != vectors[1]


def test_what_cannot_run_raises_before_anything_runs(llm: LLM) -> None:
    with pytest.raises(PromptTooLong):
        llm.generate([[5] * 10, [5] * 5000], GREEDY)
    with pytest.raises(InvalidRequest):
        llm.generate([], GREEDY)
    with pytest.raises(InvalidRequest):
        llm.chat([], GREEDY)
    assert llm.generate([[5] * 10], GREEDY)[0].finish_reason is FinishReason.LENGTH


def test_unknown_settings_and_models_are_named() -> None:
    with pytest.raises(ConfigError, match="max_tokens_typo"):
        LLM(max_tokens_typo=3)
    with pytest.raises(ModelLoadError, match="nowhere"):
        LLM("./nowhere")


def test_variants_are_refused_since_nothing_could_choose_among_them() -> None:
    with pytest.raises(ConfigError, match="variants are for a server"):
        LLM(variants=("int8",))


def test_replicas_are_refused_since_there_is_one_engine() -> None:
    with pytest.raises(ConfigError, match="data_parallel_size is for a server"):
        LLM(data_parallel_size=2)


def test_loading_and_a_first_token_take_none_of_torchs_compiler() -> None:
    """Importing it took a third of a server's start: torch does so by itself now and then."""
    program = (
        "import sys\n"
        "from novacron import LLM, SamplingParams\n"
        "llm = LLM(num_threads=1)\n"
        "llm.generate('One', SamplingParams(max_tokens=1))\n"
        "llm.close()\n"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
