"""The server that is measured: one at a URL, or one of our own that lives as long as the run."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from novacron.bench.http_client import Exchange, HttpClient
from novacron.bench.physical_limits import ModelTraffic, model_traffic
from novacron.bench.server import ServerPlan, ServerProcess, running_server
from novacron.bench.transcript import Transcript, read_transcript
from novacron.bench.workload import Prompt, PromptMaker
from novacron.config import load as configuration
from novacron.config.engine import EngineConfig
from novacron.config.keys import KEYS
from novacron.engine.model_path import resolve_model_path
from novacron.engine.tokenization import Tokenizer
from novacron.errors import ConfigError, RequestFailed

Route = Literal["completions", "chat"]

_MODEL = "model"
_CHAT_ONLY_AS_TEXT = "Chat takes text; leave out --prompts tokens, or choose --route completions."


@dataclass(frozen=True, kw_only=True)
class TargetOptions:
    """What a user says about the server to measure.

    With `url`, `model` is the name it serves (empty: its first). Without, a server is started with
    `model` (a folder; empty: the bundled model), the configuration file `config` and `settings`
    ("key=value", as in the file), on top of `environment`.
    """

    url: str = ""
    model: str = ""
    api_key: str = ""
    config: Path | None = None
    settings: tuple[str, ...] = ()
    route: Route = "completions"
    prompts: Literal["auto", "tokens", "text"] = "auto"
    environment: Mapping[str, str]


@dataclass(frozen=True)
class LocalEngine:
    """The engine that our own server runs: what is needed to run the same one beside it."""

    config: EngineConfig
    model_path: Path
    plan: ServerPlan
    api_key: str

    @property
    def name(self) -> str:
        """For results: never a path."""
        return self.model_path.resolve().name if self.config.model.model else "bundled"

    def traffic(self) -> ModelTraffic | None:
        """What a step reads; None where settings hold weights or the cache in another precision
        than the checkpoint's, from which it is computed."""
        model, cache = self.config.model, self.config.cache
        is_as_stored = model.quantization in ("auto", "none") and not model.quantization_layers
        is_as_stored = is_as_stored and model.dtype == cache.kv_cache_dtype == "auto"
        return model_traffic(self.model_path) if is_as_stored else None

    def keeping_blocks_in(self, folder: str) -> EngineConfig:
        """Its settings, but for the place of the disk tier if that was left to us."""
        cache = self.config.cache
        return replace(self.config, cache=replace(cache, kv_disk_path=cache.kv_disk_path or folder))

    def tokenizer(self) -> Tokenizer:
        return Tokenizer.load(Path(self.config.model.tokenizer or self.model_path))


class Target:
    """A server that answers, and how to ask it."""

    def __init__(
        self,
        client: HttpClient,
        model: str,
        maker: PromptMaker,
        route: Route,
        *,
        description: Mapping[str, Any],
        server: ServerProcess | None,
        engine: LocalEngine | None,
    ) -> None:
        self.client = client
        self.model = model
        self.maker = maker
        self.route = route
        self.description = dict(description)
        self.server = server
        self.engine = engine

    def body(self, prompt: Prompt, max_tokens: int) -> bytes:
        """A greedy request for exactly `max_tokens` tokens, streamed."""
        question: dict[str, Any] = {"prompt": prompt}
        if self.route == "chat":
            assert isinstance(prompt, str)
            question = {"messages": [{"role": "user", "content": prompt}]}
        return encode_request(
            self.model, question, max_tokens, ignore_eos=True, skip_special_tokens=False
        )

    def chat_body(self, messages: list[dict[str, str]], max_tokens: int) -> bytes:
        """A greedy answer to a conversation, ended where the model ends it."""
        return encode_request(self.model, {"messages": messages}, max_tokens)

    async def complete(self, body: bytes) -> Transcript:
        return read_transcript(await self.record(body))

    async def record(self, body: bytes) -> Exchange:
        """The exchange, unread: reading many at once is left for when nothing is timed."""
        path = "chat/completions" if self.route == "chat" else "completions"
        return await self.client.post(f"/v1/{path}", body)

    async def chat(self, body: bytes) -> Transcript:
        return read_transcript(await self.client.post("/v1/chat/completions", body))


def encode_request(model: str, question: Mapping[str, Any], max_tokens: int, **extra: Any) -> bytes:
    """The body of a greedy, streamed request that reports its usage."""
    return msgspec.json.encode(
        {
            "model": model,
            **question,
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
            **extra,
        }
    )


def with_settings(options: TargetOptions, settings: tuple[str, ...]) -> TargetOptions:
    """The same with `settings` in place of those it has, its file's too; `model=FOLDER` among them
    is its model."""
    models = [
        value for name, _, value in (one.partition("=") for one in settings) if name == _MODEL
    ]
    others = tuple(one for one in settings if one.partition("=")[0] != _MODEL)
    model = models[-1] if models else options.model
    return replace(options, config=None, settings=others, model=model)


def local_engine(options: TargetOptions) -> LocalEngine:
    """The engine that `options` describe, before it is started. Raises ConfigError."""
    if options.url:
        raise ConfigError("This needs an engine of our own; leave out --url.")
    flags = {**_parse_settings(options.settings), "model": options.model or None}
    settings = configuration.load(file=options.config, env=options.environment, flags=flags)
    arguments = [options.model] if options.model else []
    if options.config is not None:
        arguments += ["--config", str(options.config)]
    given = {
        KEYS[name].variable: value for name, value in _parse_settings(options.settings).items()
    }
    keys = settings.server.api_key
    return LocalEngine(
        config=settings.engine,
        model_path=resolve_model_path(settings.engine.model.model),
        plan=ServerPlan(tuple(arguments), {**options.environment, **given}),
        api_key=options.api_key or (keys[0] if keys else ""),
    )


@contextlib.asynccontextmanager
async def open_target(options: TargetOptions) -> AsyncIterator[Target]:
    """A server that is ready, closed (and ended, if it is ours) on the way out."""
    if options.url:
        client = HttpClient(options.url, options.api_key or None)
        try:
            yield await _foreign_target(client, options)
        finally:
            client.close()
        return
    engine = local_engine(options)
    async with running_server(engine.plan) as server:
        client = HttpClient(server.url, engine.api_key or None)
        try:
            await server.wait_for(client, "/ready")
            yield await _own_target(client, options, server, engine)
        finally:
            client.close()


def check(transcripts: list[Transcript]) -> list[Transcript]:
    """The same transcripts. Raises RequestFailed if one of them failed."""
    for transcript in transcripts:
        if not transcript.ok:
            raise RequestFailed(f"A request of the benchmark failed: {transcript.error}")
    return transcripts


def engine_settings(config: EngineConfig) -> dict[str, Any]:
    """What the engine is told, without what names places of this machine."""
    shown = {"model", "tokenizer", "chat_template", "kv_disk_path"}
    parts = {**asdict(config.model), **asdict(config.cache), **asdict(config.scheduler)}
    return {name: value for name, value in parts.items() if name not in shown}


def _parse_settings(settings: tuple[str, ...]) -> dict[str, str]:
    parsed = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        name = name.strip().lstrip("-").replace("-", "_")
        if not equals or name not in KEYS:
            raise ConfigError(f"'{setting}' is no setting; write for example num_threads=1.")
        parsed[name] = value
    return parsed


async def _foreign_target(client: HttpClient, options: TargetOptions) -> Target:
    if options.prompts == "tokens":
        raise ConfigError(
            "The vocabulary of a server at a URL is not known here; leave out --prompts tokens."
        )
    return Target(
        client,
        options.model or await first_model(client),
        PromptMaker(),
        options.route,
        description={"url": options.url, "model": options.model, "route": options.route},
        server=None,
        engine=None,
    )


async def _own_target(
    client: HttpClient, options: TargetOptions, server: ServerProcess, engine: LocalEngine
) -> Target:
    as_text = options.prompts == "text" or options.route == "chat"
    if options.route == "chat" and options.prompts == "tokens":
        raise ConfigError(_CHAT_ONLY_AS_TEXT)
    model = await first_model(client)
    return Target(
        client,
        model,
        PromptMaker() if as_text else token_prompts(engine.tokenizer()),
        options.route,
        description={
            "model": model,
            "route": options.route,
            "settings": engine_settings(engine.config),
        },
        server=server,
        engine=engine,
    )


def token_prompts(tokenizer: Tokenizer) -> PromptMaker:
    """Prompts of any of the model's ordinary tokens."""
    ordinary = set(range(tokenizer.vocab_size)) - tokenizer.special_token_ids
    return PromptMaker(sorted(ordinary))


async def first_model(client: HttpClient) -> str:
    """The first model that the server names. Raises ConfigError if it names none."""
    exchange = await client.get("/v1/models")
    try:
        return str(msgspec.json.decode(exchange.body)["data"][0]["id"])
    except (msgspec.DecodeError, KeyError, IndexError, TypeError) as error:
        raise ConfigError(
            f"The server did not tell its models (status {exchange.status}); name one with --model."
        ) from error
