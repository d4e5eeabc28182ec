"""An engine, put together from its configuration: the executor with its models, and the core around
it. One way for the engine process, for `LLM` and for what measures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from novacron.config.engine import EngineConfig
from novacron.engine.cache_books import AroundChoice, as_it_is, build_cache_desk
from novacron.engine.core import EngineCore
from novacron.engine.draft_pair import find_draft_model
from novacron.engine.kv_trace import KVTrace
from novacron.engine.link.linked_ranks import load_linked_model
from novacron.engine.structured_output import GrammarCompiler
from novacron.engine.tokenization import Tokenizer
from novacron.executor.executor import Executor, tell_nobody
from novacron.executor.hosts.linked_pipeline import LinkedPipelineExecutor
from novacron.executor.hosts.linked_rows import LinkedRowsExecutor
from novacron.executor.hosts.linked_slices import LinkedSlicesExecutor
from novacron.executor.inline import InlineExecutor
from novacron.executor.multiprocess import MultiprocessExecutor
from novacron.executor.parallel_limits import refuse_with_ranks
from novacron.executor.pipeline import PipelineExecutor
from novacron.kv_cache.kv_cache_manager import KVCacheManager
from novacron.scheduler.request_state import RequestState
from novacron.scheduler.scheduler import Scheduler
from novacron.scheduler.sessions import Sessions
from novacron.scheduler.speculation_choice import build_speculation

AnyExecutor = (
    InlineExecutor
    | MultiprocessExecutor
    | PipelineExecutor
    | LinkedPipelineExecutor
    | LinkedSlicesExecutor
    | LinkedRowsExecutor
)


def load_executor(
    config: EngineConfig,
    model_path: Path,
    progress: Callable[[str, float], None],
    on_loss: Callable[[str], None] = tell_nobody,
    owner: str = "",
) -> AnyExecutor:
    """The executor of an engine, its models loaded. `on_loss` is that of MultiprocessExecutor;
    `owner` names who starts the engine anew to ranks on other hosts, if it is not this process.
    Raises ConfigError and ModelLoadError."""
    refuse_with_ranks(config)
    draft_path = find_draft_model(config, model_path)
    if config.apart.hosts:
        return load_linked_model(config, model_path, draft_path, progress, on_loss, owner)
    if config.model.pipeline_parallel_size > 1:
        return PipelineExecutor(
            config.model,
            config.cache,
            config.scheduler,
            model_path=model_path,
            draft_path=draft_path,
            progress=progress,
            speculative=config.speculative,
            shared=config.shared,
            on_loss=on_loss,
        )
    if config.model.tensor_parallel_size > 1 or config.model.context_parallel_size > 1:
        return MultiprocessExecutor(
            config.model,
            config.cache,
            config.scheduler,
            model_path=model_path,
            draft_path=draft_path,
            progress=progress,
            speculative=config.speculative,
            shared=config.shared,
            on_loss=on_loss,
        )
    return InlineExecutor(
        config.model,
        config.cache,
        config.scheduler,
        model_path=model_path,
        draft_path=draft_path,
        progress=progress,
        speculative=config.speculative,
        shared=config.shared,
    )


def build_core(
    config: EngineConfig,
    executor: Executor,
    tokenizer_path: Path,
    around_choice: AroundChoice = as_it_is,
    most_live: int | None = None,
) -> EngineCore:
    """The core of an engine around an executor that has loaded its model. `around_choice` may put
    something between the scheduler and what decides whether blocks are fetched. `most_live`: most
    requests at once; others are shed."""
    spec = executor.spec
    kv_cache = KVCacheManager(
        num_blocks=spec.num_blocks,
        block_size=spec.block_size,
        model_version=spec.model_version,
        kv_dtype=spec.kv_identity,
        enable_prefix_caching=config.cache.enable_prefix_caching,
    )
    sessions = Sessions()
    tiers, desk = build_cache_desk(config, spec, kv_cache, sessions, executor, around_choice)
    see_end: Callable[[RequestState], None] | None = None
    if config.cache.kv_trace:
        see_end = KVTrace(Path(config.cache.kv_trace).expanduser(), spec.block_size).see_end
    scheduler = Scheduler(
        config.scheduler,
        kv_cache,
        max_model_len=spec.max_model_len,
        eos_token_ids=frozenset(spec.eos_token_ids),
        speculation=build_speculation(
            config.speculative,
            kv_cache,
            max_num_seqs=config.scheduler.max_num_seqs,
            draft_context_length=spec.draft_model.context_length if spec.draft_model else 0,
        ),
        tiers=tiers,
        sessions=sessions,
        max_in_flight=executor.max_steps_in_flight,
        most_live=most_live,
        see_end=see_end,
    )

    def make_grammar_compiler() -> GrammarCompiler:
        tokenizer = Tokenizer.load(tokenizer_path)
        return GrammarCompiler(tokenizer.json_text, spec.vocab_size, spec.eos_token_ids)

    return EngineCore(executor, scheduler, make_grammar_compiler, desk)
