"""What clients send to the OpenAI endpoints: pydantic models, which FastAPI also documents.

Unknown fields are accepted, as OpenAI-compatible servers do. Ranges are checked where the schema
can say them; what depends on the model is checked in chat.py, completions.py and by the engine.
The fields after `seed` that OpenAI does not have are vLLM's, with its meaning.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from novacron.gateway.cache_scope import CacheSharing
from novacron.gateway.slo import SloClass

JsonObject = dict[str, Any]
Int32 = Annotated[int, Field(ge=-(2**31), le=2**31 - 1)]
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
Seed = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
TokenId = Annotated[int, Field(ge=0, le=2**31 - 1)]
NonEmptyText = Annotated[str, Field(min_length=1)]
Objective = Annotated[float, Field(ge=0, le=1e6)]
NumChoices = Annotated[int, Field(ge=1, le=128)]
NumLogprobs = Annotated[int, Field(ge=0, le=20)]


class Body(BaseModel):
    """Base of all request bodies and of the objects inside them."""

    model_config = ConfigDict(
        extra="allow", allow_inf_nan=False, protected_namespaces=(), frozen=True
    )


class StreamOptions(Body):
    include_usage: bool = False


class StructuredOutputs(Body):
    """A constraint on the text; give exactly one of the fields."""

    json_schema: JsonObject | str | None = Field(None, alias="json")
    json_object: bool | None = None
    regex: NonEmptyText | None = None
    choice: list[NonEmptyText] | None = None
    grammar: NonEmptyText | None = None


class JsonSchemaFormat(Body):
    name: str | None = None
    json_schema: JsonObject | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Body):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None


class GenerationBody(Body):
    """Fields that chats and completions share.

    `quantization` and `quality_preference` are ours: they choose among the loaded variants of the
    model. The answer has `warnings` if it was computed in another than was asked for. Ours, too:
    `session_id` names the conversation that a request is a turn of, and `cache_scope` "public"
    shares what is cached of the prompt and the answer with callers that hold other keys.
    `slo_class` names how soon the first token is wanted and each further one, `ttft_slo` and
    `tpot_slo` say it in seconds; they matter where the scheduling policy is `deadline`.
    """

    model: str | None = None
    max_tokens: Count | None = None
    temperature: Annotated[float, Field(ge=0, le=1e6)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    n: NumChoices | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop: str | list[NonEmptyText] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    seed: Seed | None = None
    user: str | None = None

    top_k: Annotated[int, Field(ge=-1, le=2**31 - 1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=1e6)] | None = None
    min_tokens: Count | None = None
    ignore_eos: bool | None = None
    stop_token_ids: list[TokenId] | None = None
    include_stop_str_in_output: bool | None = None
    skip_special_tokens: bool | None = None
    prompt_logprobs: NumLogprobs | None = None
    priority: Int32 | None = None
    slo_class: SloClass | None = None
    ttft_slo: Objective | None = None
    tpot_slo: Objective | None = None
    cache_salt: str | None = None
    cache_scope: CacheSharing | None = None
    session_id: str | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: JsonObject | str | None = None
    guided_regex: NonEmptyText | None = None
    guided_choice: list[NonEmptyText] | None = None
    guided_grammar: NonEmptyText | None = None

    quantization: str | None = None
    quality_preference: str | float | None = None


class ContentPart(Body):
    """Other types than text are refused by name, so they are not refused here."""

    type: Annotated[str, WithJsonSchema({"type": "string", "const": "text"})]
    text: str | None = None


class FunctionCall(Body):
    name: str
    arguments: str | JsonObject = ""


class ToolCall(Body):
    id: str | None = None
    type: Literal["function"] = "function"
    function: FunctionCall


class ChatMessage(Body):
    role: NonEmptyText
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None


class FunctionDefinition(Body):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    description: str | None = None
    parameters: JsonObject | None = None
    strict: bool | None = None


class Tool(Body):
    type: Literal["function"]
    function: FunctionDefinition


class NamedFunction(Body):
    name: str


class NamedToolChoice(Body):
    type: Literal["function"]
    function: NamedFunction


class ChatBody(GenerationBody):
    """POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    logprobs: bool | None = None
    top_logprobs: NumLogprobs | None = None
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedToolChoice | None = None
    parallel_tool_calls: bool | None = None
    chat_template_kwargs: JsonObject | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None


TokenIds = Annotated[list[TokenId], Field(min_length=1)]
Prompts = (
    str | TokenIds | Annotated[list[str], Field(min_length=1)]
    | Annotated[list[TokenIds], Field(min_length=1)]
)  # fmt: skip


class CompletionBody(GenerationBody):
    """POST /v1/completions.

    `parse_special` (llama.cpp's; true by default): special tokens in the text become tokens.
    """

    prompt: Prompts
    echo: bool | None = None
    suffix: str | None = None
    best_of: int | None = None
    logprobs: NumLogprobs | None = None
    add_special_tokens: bool | None = None
    parse_special: bool | None = None


class EmbeddingBody(Body):
    """POST /v1/embeddings. `pooling` is ours: how token vectors become one."""

    input: Prompts
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    user: str | None = None
    pooling: Literal["mean", "last"] | None = None
    priority: Int32 | None = None
    cache_salt: str | None = None
    cache_scope: CacheSharing | None = None


class TokenizeBody(Body):
    """POST /tokenize: give `prompt` or `messages`, as to vLLM."""

    model: str | None = None
    prompt: str | None = None
    messages: list[ChatMessage] | None = None
    tools: list[Tool] | None = None
    add_special_tokens: bool | None = None
    parse_special: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: JsonObject | None = None
    return_token_strs: bool | None = None


class DetokenizeBody(Body):
    """POST /detokenize."""

    model: str | None = None
    tokens: list[TokenId]
