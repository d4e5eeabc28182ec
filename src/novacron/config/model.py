"""Settings of the model: which one, in which precision, on how many ranks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from novacron.config.privacy import check_region
from novacron.config.setting import require, setting
from novacron.config.variants import parse_variants
from novacron.config.weight_layers import parse_weight_layers

MOST_REPLICAS: Final = 64


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Which model, and how its weights are held."""

    model: str = setting(
        "", "Hugging Face folder, name or GGUF file; empty: the bundled model", flags=("--model",)
    )
    served_model_name: tuple[str, ...] = setting(
        (), "names clients may use; empty: that of the folder or file"
    )
    tokenizer: str = setting("", "folder of the tokenizer; empty: the model's")
    chat_template: str = setting("", "file with a chat template that replaces the tokenizer's")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = setting(
        "auto",
        "precision of weights and activations; auto: the checkpoint's, if the device is fast at it",
    )
    quantization: Literal[
        "auto", "none", "fp32", "fp16", "bf16", "fp8", "int8", "int4",
        "memory_critical", "balanced", "quality_critical",
    ] = setting(
        "auto",
        "precision of weights, made at load: one level for all of them, or a profile with a level "
        "for each part of a model, see novacron quantize --explain; auto: that of a folder which "
        "novacron quantize wrote, else none; inputs of int8 and int4 weights are rounded to int8",
        flags=("-q",),
    )  # fmt: skip
    quantization_layers: tuple[str, ...] = setting(
        (),
        "matrices of another precision, as PATTERN=LEVEL with a glob over their names in a Llama "
        "checkpoint: model.layers.0.*=int8,*.down_proj.weight=int4/64 (in groups of 64)",
    )
    quantization_group_size: int | None = setting(
        None,
        "neighbouring weights that share a scale in int8 and int4: 32, 64 or 128; empty: 32 in "
        "int4, and in int8 the largest that divides a row",
    )
    variants: tuple[str, ...] = setting(
        (),
        "further precisions of the model, each loaded beside it in a process of its own, as "
        "QUANTIZATION or QUANTIZATION:KV_CACHE_DTYPE: int8,none. Requests choose among them, and "
        "with quality_watch new requests go to the next finer one while quality is below the floor",
    )
    packed_cache_size: int = setting(
        32 * 2**30,
        "most bytes on disk of weights packed for the CPU, which later starts map; 0: keep none",
        unit="bytes",
    )
    cache_dir: str = setting(
        "", "folder for what can be made again, below novacron/ in it; empty: ~/.cache"
    )
    device: Literal["auto", "cpu", "cuda"] = setting("auto", "auto: cuda if there is one, else cpu")
    max_model_len: int | None = setting(
        None,
        "longest prompt plus output, in tokens; empty: what the model was made for",
        flags=("-c",),
    )
    seed: int | None = setting(
        None, "makes the seeds drawn for requests that bring none repeatable; empty: random"
    )
    region: str = setting(
        "",
        "where this server (or engine, with novacron engine) and its disk are, such as "
        "eu-central: data of tenants that may not be there never gets there; empty: not said",
    )
    num_threads: int = setting(
        0,
        "threads for computing on CPU, of each variant and of all its replicas together; 0: one "
        "per physical core we may use",
    )
    tensor_parallel_size: int = setting(
        1,
        "processes that compute each step together, every one with its slice of the weights and of "
        "the KV cache: 1, 2 or 4, on this host, where they share num_threads, or, without stages, "
        "one on each of rank_hosts; on CPU only so far",
        flags=("-tp",),
    )
    context_parallel_size: int = setting(
        1,
        "processes that share the tokens of long prompts out: each has all weights, and computes "
        "some rows of every chunk, on KV blocks that all share; what is short, such as the next "
        "token of each request, the first one computes alone, with all of num_threads: 1 to 8, on "
        "this host, or one on each of rank_hosts; on CPU with native kernels only so far",
        flags=("-cp", "--prefill-context-parallel-size"),
    )
    pipeline_parallel_size: int = setting(
        1,
        "stages, each with some of the layers and their KV cache, that compute several steps at "
        "once, one behind the other; each has tensor_parallel_size processes: 1 to 16; on CPU only "
        "so far",
        flags=("-pp",),
    )
    pipeline_steps_in_flight: int = setting(
        0,
        "steps that the stages of a pipeline compute at once, each with its share of the requests "
        "and of num_threads; 1: stages take turns, with all requests and all threads, which reads "
        "the weights least often; 0: what is best where all stages share the cores of a host: 1",
    )
    rank_timeout: float = setting(
        10.0,
        "seconds that others may wait for one of several ranks that neither computes nor waits for "
        "a core, before it is taken to hang, killed and replaced by a new process",
    )
    data_parallel_size: int = setting(
        1,
        "replicas: whole engines beside each other, among which requests are shared out by what "
        "they have cached and by load, and of which one can die or be restarted while others "
        "serve; num_threads, kv_cache_memory and kv_ram_size are for all of them together, "
        "max_num_seqs and max_queued_requests for each",
        flags=("-dp",),
    )
    kernels: Literal["auto", "native", "torch"] = setting(
        "auto",
        "what computes on CPU: our native kernels or PyTorch; auto: native where they are built",
    )
    compilation: str = setting(
        "off",
        "where PyTorch computes (a GPU, kernels=torch): compile the feed-forward part of layers at "
        "start; torch: with torch.compile's inductor; or the name of an installed plug-in, such as "
        "openvino or tensorrt; takes seconds to minutes at every start",
    )

    def __post_init__(self) -> None:
        require(
            self.max_model_len is None or self.max_model_len > 0,
            "max_model_len", self.max_model_len, "give a positive number, or leave it out",
        )  # fmt: skip
        require(self.num_threads >= 0, "num_threads", self.num_threads, "give 0 or more")
        require(
            self.tensor_parallel_size in (1, 2, 4), "tensor_parallel_size",
            self.tensor_parallel_size, "choose 1, 2 or 4",
        )  # fmt: skip
        require(
            1 <= self.context_parallel_size <= 8, "context_parallel_size",
            self.context_parallel_size, "choose 1 to 8",
        )  # fmt: skip
        require(
            1 <= self.pipeline_parallel_size <= 16, "pipeline_parallel_size",
            self.pipeline_parallel_size, "choose 1 to 16",
        )  # fmt: skip
        require(
            0 <= self.pipeline_steps_in_flight <= 32, "pipeline_steps_in_flight",
            self.pipeline_steps_in_flight, "choose 1 to 32, or 0",
        )  # fmt: skip
        require(
            self.rank_timeout > 0, "rank_timeout", self.rank_timeout, "give seconds, such as 10"
        )
        require(
            1 <= self.data_parallel_size <= MOST_REPLICAS, "data_parallel_size",
            self.data_parallel_size, f"give a number from 1 to {MOST_REPLICAS}",
        )  # fmt: skip
        require(
            self.packed_cache_size >= 0, "packed_cache_size", self.packed_cache_size,
            "give a size such as 32Gi, or 0",
        )  # fmt: skip
        check_region("region", self.region)
        parse_weight_layers(self.quantization_layers)
        parse_variants(self.variants)
        size = self.quantization_group_size
        require(
            size in (None, 32, 64, 128), "quantization_group_size", size,
            "choose 32, 64 or 128, or leave it out",
        )  # fmt: skip
