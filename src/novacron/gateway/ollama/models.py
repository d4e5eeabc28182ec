"""The served model in Ollama's words."""

from __future__ import annotations

from novacron.engine.client import EngineClient, EngineState
from novacron.gateway.ollama.records import (
    OllamaDetails,
    OllamaModel,
    OllamaModelFacts,
    OllamaModels,
    OllamaRunningModel,
    OllamaRunningModels,
    rfc3339,
)
from novacron.gateway.served_model import ServedModel
from novacron.gateway.tool_calls import detect_form
from novacron.records.output import ModelSpec

_NEVER = "9999-12-31T23:59:59Z"  # models stay loaded
_LATEST = ":latest"


def served_name(model: ServedModel, name: str) -> str:
    """Without the tag that Ollama's clients add to names that have none."""
    if name.endswith(_LATEST) and name not in model.listed:
        return name.removesuffix(_LATEST)
    return name


def model_tags(model: ServedModel) -> OllamaModels:
    return OllamaModels(tuple(_tag(model, name) for name in model.listed))


def _tag(model: ServedModel, name: str) -> OllamaModel:
    spec = _spec(model, name)
    return OllamaModel(
        name=name,
        model=name,
        modified_at=rfc3339(model.created),
        size=spec.weight_bytes if spec else 0,
        digest=spec.model_version if spec else "",
        details=_details(spec),
    )


def running_models(model: ServedModel) -> OllamaRunningModels:
    """Each name of what is loaded now."""
    running = []
    for name in model.listed:
        spec = _spec(model, name)
        _, variant = model.resolve(name)
        if spec is None or model.variant(variant).state is not EngineState.READY:
            continue
        size = spec.weight_bytes + spec.kv_cache_bytes
        running.append(
            OllamaRunningModel(
                name=name,
                model=name,
                size=size,
                size_vram=0 if spec.device.startswith("cpu") else size,
                digest=spec.model_version,
                details=_details(spec),
                context_length=spec.max_model_len,
                expires_at=_NEVER,
            )
        )
    return OllamaRunningModels(tuple(running))


def model_facts(model: ServedModel, client: EngineClient, name: str) -> OllamaModelFacts:
    """Raises ModelNotFound, and NotReady before the model was loaded."""
    model.resolve(name)
    spec = _spec(model, name) or client.spec
    template = client.tokenizer.chat_template_source(has_tools=False)
    with_tools = client.tokenizer.chat_template_source(has_tools=True)
    family = _family(spec)
    return OllamaModelFacts(
        template=template,
        details=_details(spec),
        model_info={
            "general.architecture": family,
            "general.parameter_count": spec.num_parameters,
            f"{family}.context_length": spec.max_model_len,
            f"{family}.embedding_length": spec.hidden_size,
            f"{family}.vocab_size": spec.vocab_size,
        },
        capabilities=("completion", "tools") if detect_form(with_tools) else ("completion",),
        modified_at=rfc3339(model.created),
    )


def _spec(model: ServedModel, name: str) -> ModelSpec | None:
    _, variant = model.resolve(name)
    return model.variant(variant).spec


def _details(spec: ModelSpec | None) -> OllamaDetails:
    family = _family(spec) if spec else ""
    return OllamaDetails(
        format="safetensors",
        family=family,
        families=(family,) if family else (),
        parameter_size=_parameters(spec.num_parameters) if spec else "",
        quantization_level=_quantization(spec) if spec else "",
    )


def _family(spec: ModelSpec) -> str:
    return spec.architecture.removesuffix("ForCausalLM").lower()


def _quantization(spec: ModelSpec) -> str:
    name = spec.dtype if spec.quantization == "none" else spec.quantization.partition(" ")[0]
    return name.rstrip(":,")


def _parameters(number: int) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return str(number)
