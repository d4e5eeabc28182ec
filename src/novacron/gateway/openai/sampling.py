"""The fields that chats and completions share, as SamplingParams and PrecisionWish."""

from __future__ import annotations

import json

from novacron.errors import InvalidRequest
from novacron.gateway.openai.schema import GenerationBody, JsonObject, ResponseFormat
from novacron.gateway.precision import PrecisionWish
from novacron.records.request import SamplingParams, StructuredOutput


def wish_of(body: GenerationBody) -> PrecisionWish:
    return PrecisionWish(body.quantization, body.quality_preference)


def sampling_params(
    body: GenerationBody,
    *,
    max_tokens: int | None,
    logprobs: int | None,
    prompt_logprobs: int | None,
    structured_output: StructuredOutput | None,
) -> SamplingParams:
    """Raises InvalidRequest for what the schema could not check."""
    return SamplingParams(
        max_tokens=max_tokens,
        min_tokens=body.min_tokens or 0,
        temperature=_given(body.temperature, 1.0),
        top_k=max(0, body.top_k or 0),  # -1 is vLLM's "off"
        top_p=_given(body.top_p, 1.0),
        min_p=body.min_p or 0.0,
        repetition_penalty=_given(body.repetition_penalty, 1.0),
        frequency_penalty=body.frequency_penalty or 0.0,
        presence_penalty=body.presence_penalty or 0.0,
        logit_bias=_logit_bias(body.logit_bias),
        seed=body.seed,
        stop=_stop_strings(body.stop),
        stop_token_ids=tuple(body.stop_token_ids or ()),
        include_stop_str_in_output=bool(body.include_stop_str_in_output),
        ignore_eos=bool(body.ignore_eos),
        logprobs=logprobs,
        prompt_logprobs=prompt_logprobs,
        structured_output=structured_output,
        skip_special_tokens=body.skip_special_tokens is not False,
    )


def structured_output(body: GenerationBody) -> StructuredOutput | None:
    """The constraint on the text, from whichever field it was asked for; at most one."""
    constraints = {
        "response_format": _from_response_format(body.response_format),
        "structured_outputs": _from_structured_outputs(body),
        "guided_json": _json_schema(body.guided_json),
        "guided_regex": _spec("regex", body.guided_regex),
        "guided_choice": _choice(body.guided_choice),
        "guided_grammar": _spec("grammar", body.guided_grammar),
    }
    given = {name: value for name, value in constraints.items() if value is not None}
    if len(given) > 1:
        raise InvalidRequest(
            f"{' and '.join(given)} both constrain the text; give only one.", param=list(given)[1]
        )
    return next(iter(given.values()), None)


def _from_response_format(wanted: ResponseFormat | None) -> StructuredOutput | None:
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return StructuredOutput("json_object")
    if wanted.json_schema is None or wanted.json_schema.json_schema is None:
        raise InvalidRequest(
            "response_format of type json_schema needs json_schema.schema.",
            param="response_format.json_schema.schema",
        )
    return _json_schema(wanted.json_schema.json_schema)


def _from_structured_outputs(body: GenerationBody) -> StructuredOutput | None:
    wanted = body.structured_outputs
    if wanted is None:
        return None
    constraints = (
        _json_schema(wanted.json_schema),
        StructuredOutput("json_object") if wanted.json_object else None,
        _spec("regex", wanted.regex),
        _choice(wanted.choice),
        _spec("grammar", wanted.grammar),
    )
    given = [constraint for constraint in constraints if constraint is not None]
    if len(given) != 1:
        raise InvalidRequest(
            "structured_outputs needs exactly one of json, json_object, regex, choice, grammar; "
            f"it has {len(given)}.",
            param="structured_outputs",
        )
    return given[0]


def _json_schema(schema: JsonObject | str | None) -> StructuredOutput | None:
    if schema is None:
        return None
    text = schema if isinstance(schema, str) else json.dumps(schema)
    return StructuredOutput("json_schema", text)


def _choice(choices: list[str] | None) -> StructuredOutput | None:
    if choices is None:
        return None
    if not choices:
        raise InvalidRequest("The list of choices is empty; give at least one.", "guided_choice")
    return StructuredOutput("choice", json.dumps(choices))


def _spec(kind: str, spec: str | None) -> StructuredOutput | None:
    match kind, spec:
        case _, None:
            return None
        case "regex", str(regex):
            return StructuredOutput("regex", regex)
        case _, str(grammar):
            return StructuredOutput("grammar", grammar)


def _stop_strings(stop: str | list[str] | None) -> tuple[str, ...]:
    if stop is None:
        return ()
    return (stop,) if isinstance(stop, str) else tuple(stop)


def _logit_bias(bias: dict[str, float] | None) -> dict[int, float]:
    try:
        return {int(token_id): value for token_id, value in (bias or {}).items()}
    except ValueError:
        raise InvalidRequest(
            "logit_bias must map token ids (whole numbers, written as JSON keys) to numbers.",
            param="logit_bias",
        ) from None


def _given(value: float | None, default: float) -> float:
    return default if value is None else value
