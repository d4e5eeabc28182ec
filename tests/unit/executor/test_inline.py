from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from novacron.config.cache import CacheConfig
from novacron.config.model import ModelConfig
from novacron.config.scheduler import SchedulerConfig
from novacron.errors import ConfigError, ModelLoadError
from novacron.executor import inline, own_rank
from novacron.executor.blueprint import refuse_unknown_levels
from novacron.executor.inline import InlineExecutor
from novacron.executor.memory_plan import DeviceMemory
from novacron.kernels.table import TORCH_KERNELS
from novacron.models.weight_precision import WeightPrecision
from novacron.quantization.precision_map import PrecisionMap
from novacron.records.output import ModelSpec
from novacron.records.request import SamplingParams
from novacron.records.step import NewRequest, ScheduledTokens, SchedulerOutput
from novacron.testing.tiny_models import EOS_TOKEN_ID, make_tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(
        "llama", tmp_path_factory.mktemp("models") / "tiny", dtype=torch.bfloat16
    )


def load(folder: Path, cache: CacheConfig | None = None, **model: Any) -> InlineExecutor:
    return InlineExecutor(
        ModelConfig(device="cpu", num_threads=1, **model),
        cache or CacheConfig(kv_cache_memory=2**20),
        SchedulerConfig(max_num_seqs=4),
        model_path=folder,
        progress=lambda phase, fraction: None,
    )


def test_spec_tells_what_was_loaded(folder: Path) -> None:
    seen: list[tuple[str, float]] = []
    executor = InlineExecutor(
        ModelConfig(device="cpu", dtype="float32", num_threads=1),
        CacheConfig(),
        SchedulerConfig(max_num_seqs=4),
        model_path=folder,
        progress=lambda phase, fraction: seen.append((phase, fraction)),
    )
    spec = executor.spec
    assert spec.name == "tiny"
    assert spec.architecture == "LlamaForCausalLM"
    assert (spec.vocab_size, spec.hidden_size, spec.max_model_len) == (384, 64, 512)
    assert spec.eos_token_ids == (EOS_TOKEN_ID,)
    assert (spec.dtype, spec.device) == ("float32", "cpu")
    assert spec.weight_bytes == 4 * spec.num_parameters
    assert spec.num_blocks == 4 * 512 // 16, "no more than four requests can use"
    assert spec.kv_cache_bytes == spec.num_blocks * 16 * 2 * 3 * 4 * 8 * 4
    phases = ["config", "weights", "kv_cache", "warm_up"]
    assert list(spec.load_phases_s) == phases
    assert [phase for phase, fraction in seen if fraction == 0.0] == phases
    assert len(spec.model_version) == 32
    executor.shutdown()
    executor.shutdown()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_computes_in_every_precision(folder: Path, dtype: str) -> None:
    executor = load(folder, dtype=dtype)
    assert executor.spec.dtype == dtype
    request = NewRequest("a", (5, 6, 7), 3, SamplingParams(temperature=0.0, seed=0))
    part = ScheduledTokens("a", 0, 3, (0,))
    output = executor.execute(SchedulerOutput(1, (request,), (part,), (), ()))
    assert output.results[0].error is None
    assert len(output.results[0].token_ids) == 1


@pytest.mark.parametrize("kernels", ["auto", "torch"])
@pytest.mark.parametrize("quantization", ["fp8", "int8", "int4"])
def test_computes_with_rounded_weights(folder: Path, quantization: str, kernels: str) -> None:
    plain = load(folder, kernels=kernels).spec
    executor = load(folder, kernels=kernels, quantization=quantization)
    spec = executor.spec
    levels = {  # of the vocabulary, too
        "fp8": "fp8, some bfloat16" if plain.dtype == "bfloat16" else "fp8, some float32",
        "int8": "int8 in groups of 64 and 128",  # the largest that divides a row
        "int4": "int4 in groups of 32, int8 in groups of 64",
    }
    assert spec.quantization == levels[quantization]
    assert spec.weight_bytes < plain.weight_bytes
    assert spec.num_parameters == plain.num_parameters
    request = NewRequest("a", (5, 6, 7), 3, SamplingParams(temperature=0.0, seed=0))
    part = ScheduledTokens("a", 0, 3, (0,))
    output = executor.execute(SchedulerOutput(1, (request,), (part,), (), ()))
    assert output.results[0].error is None


def test_blocks_of_one_precision_are_never_found_with_another(folder: Path) -> None:
    choices: list[dict[str, Any]] = [
        {},
        {"quantization": "int8"},
        {"quantization": "int4"},
        {"quantization": "fp8"},
        {"quantization": "int4", "quantization_group_size": 64},
        {"quantization": "memory_critical"},
        {"quantization": "int8", "quantization_layers": ("*.0.*=int4",)},
        {"quantization": "int8", "quantization_layers": ("*.1.*=int4",)},
    ]
    versions = {load(folder, **choice).spec.model_version for choice in choices}
    assert len(versions) == len(choices)


def test_a_profile_gives_each_matrix_its_level(folder: Path) -> None:
    spec = load(folder, quantization="balanced", dtype="bfloat16").spec
    assert spec.quantization == "balanced: int8 in groups of 64 and 128, some bfloat16"


@pytest.mark.parametrize("kernels", ["auto", "torch"])
def test_a_profile_chooses_the_precision_of_the_cache(folder: Path, kernels: str) -> None:
    def spec(profile: str, **cache: Any) -> ModelSpec:
        settings = CacheConfig(kv_cache_memory=2**20, **cache)
        return load(folder, settings, kernels=kernels, dtype="bfloat16", quantization=profile).spec

    chosen = spec("memory_critical")
    assert chosen.kv_precision == "int8/int4"
    named = spec("memory_critical", kv_cache_dtype="int8/int4")
    assert chosen.kv_identity == named.kv_identity
    assert chosen.kv_cache_bytes == named.kv_cache_bytes
    assert spec("balanced").kv_precision == "bfloat16/int8"
    assert spec("quality_critical").kv_precision == "bfloat16"
    assert spec("int4").kv_precision == "bfloat16"


def test_the_settings_of_the_cache_win_over_the_profile(folder: Path) -> None:
    def precision(**cache: Any) -> str:
        settings = CacheConfig(kv_cache_memory=2**20, **cache)
        spec = load(folder, settings, dtype="bfloat16", quantization="memory_critical").spec
        return spec.kv_precision

    assert precision(kv_cache_dtype="bf16") == "bfloat16"
    assert precision(kv_cache_dtype="auto/int8") == "int8"
    assert precision(kv_cache_dtype_layers=("0=bf16",)) == "1 x bfloat16, 2 x int8/int4"


def test_a_level_that_kernels_lack_is_refused() -> None:
    kernels = replace(TORCH_KERNELS, rounded_levels=frozenset({"int8", "int4"}))
    refuse_unknown_levels(WeightPrecision(PrecisionMap("balanced")), kernels)
    for levels in (PrecisionMap("fp8"), PrecisionMap.parse("int8", ["*.0.*=fp8"])):
        with pytest.raises(ConfigError, match=r"asks for fp8, .* they can in int4, int8"):
            refuse_unknown_levels(WeightPrecision(levels), kernels)


def test_a_pattern_without_a_matrix_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"'\*.wq.weight=int8', but no matrix"):
        load(folder, quantization_layers=("*.wq.weight=int8",))


def test_the_context_shrinks_to_the_cache_unless_asked_for(folder: Path) -> None:
    small = CacheConfig(kv_cache_memory=100 * 2 * 3 * 4 * 8 * 2)  # bytes of 100 tokens in bfloat16
    assert load(folder, small, dtype="bfloat16").spec.max_model_len == 96
    with pytest.raises(ConfigError, match=r"max_model_len is 512, .* room for 96 tokens"):
        load(folder, small, dtype="bfloat16", max_model_len=512)
    with pytest.raises(ConfigError, match="max_model_len is 513, but the model reaches 512"):
        load(folder, max_model_len=513)


def test_weights_that_cannot_fit_are_refused_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = DeviceMemory("cpu", 1000, 2000, 0.5, is_own=False)
    monkeypatch.setattr(inline, "measure_device_memory", lambda device, cache: tiny)
    monkeypatch.setattr(own_rank, "load_model", None)
    with pytest.raises(ModelLoadError, match=r"weights take .* KiB .* has 1000 bytes free"):
        load(folder)


def test_the_memory_plan_is_logged(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        load(folder)
    assert "max_model_len 512 at 4 streams, all that max_num_seqs allows" in caplog.text


def test_versions_of_stretched_contexts_differ(folder: Path, tmp_path: Path) -> None:
    dynamic = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    make_tiny_model("llama", tmp_path, rope_parameters=dynamic)
    versions = {load(tmp_path, max_model_len=length).spec.model_version for length in (256, 600)}
    assert len(versions) == 2
    plain = {load(folder, max_model_len=length).spec.model_version for length in (256, 512)}
    assert len(plain) == 1


def test_a_served_name_replaces_that_of_the_folder(folder: Path) -> None:
    assert load(folder, served_model_name=("mine", "other")).spec.name == "mine"


def test_damage_is_reported_with_file_and_reason(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"config\.json is missing"):
        load(tmp_path)
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ModelLoadError, match=r"model\.safetensors cannot be read"):
        load(tmp_path)


def test_a_draft_model_takes_its_share_of_the_memory(folder: Path, tmp_path: Path) -> None:
    """As many blocks as both fit into; a context that the smaller model reaches."""
    make_tiny_model("qwen3", tmp_path / "draft", num_hidden_layers=1, max_position_embeddings=128)
    cache = CacheConfig(kv_cache_memory=2**20)
    alone = load(folder, cache)
    executor = InlineExecutor(
        ModelConfig(device="cpu", num_threads=1),
        cache,
        SchedulerConfig(max_num_seqs=4),
        model_path=folder,
        draft_path=tmp_path / "draft",
        progress=lambda phase, fraction: None,
    )
    spec, draft = executor.spec, executor.spec.draft_model
    assert alone.spec.draft_model is None
    assert draft is not None
    assert (draft.name, draft.architecture) == ("draft", "Qwen3ForCausalLM")
    assert draft.context_length == 128
    assert draft.num_parameters < spec.num_parameters
    assert draft.kv_cache_bytes == spec.num_blocks * 16 * 2 * 4 * 16 * 2
    assert spec.num_blocks < alone.spec.num_blocks
    assert spec.kv_cache_bytes + draft.kv_cache_bytes <= 2**20
    assert list(spec.load_phases_s)[1:3] == ["weights", "draft_weights"]


def test_a_draft_model_has_the_cache_that_the_profile_says(folder: Path, tmp_path: Path) -> None:
    make_tiny_model("qwen3", tmp_path / "draft", num_hidden_layers=1, max_position_embeddings=128)
    executor = InlineExecutor(
        ModelConfig(device="cpu", num_threads=1, dtype="bfloat16", quantization="memory_critical"),
        CacheConfig(kv_cache_memory=2**18),
        SchedulerConfig(max_num_seqs=4),
        model_path=folder,
        draft_path=tmp_path / "draft",
        progress=lambda phase, fraction: None,
    )
    spec, draft = executor.spec, executor.spec.draft_model
    assert draft is not None
    of_keys = of_values = 320  # 16 tokens of 16 int8, or of 32 int4, and a scale; aligned
    assert draft.kv_cache_bytes == spec.num_blocks * 4 * (of_keys + of_values)
    assert spec.kv_cache_bytes + draft.kv_cache_bytes <= 2**18


def test_a_draft_model_is_refused_with_its_file(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (broken / "model.safetensors").unlink()
    with pytest.raises(ModelLoadError, match="broken"):
        InlineExecutor(
            ModelConfig(device="cpu", num_threads=1),
            CacheConfig(kv_cache_memory=2**20),
            SchedulerConfig(max_num_seqs=4),
            model_path=folder,
            draft_path=broken,
            progress=lambda phase, fraction: None,
        )
