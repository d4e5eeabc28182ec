"""Which speculation an engine uses."""

from __future__ import annotations

from novacron.config.engine import SpeculativeConfig
from novacron.kv_cache.kv_cache_manager import KVCacheManager
from novacron.scheduler.adaptive_speculation import AdaptiveSpeculation
from novacron.scheduler.draft_speculation import DraftModelSpeculation
from novacron.scheduler.guesser import Drafter
from novacron.scheduler.prompt_lookup import PromptLookup
from novacron.scheduler.speculation import NoSpeculation, Speculation


def build_speculation(
    config: SpeculativeConfig,
    kv_cache: KVCacheManager,
    *,
    max_num_seqs: int,
    draft_context_length: int,
) -> Speculation:
    """What the configuration asks for. A draft model guesses up to `draft_context_length` tokens of
    a request."""
    if config.speculative_method == "off":
        return NoSpeculation()
    if config.speculative_method == "draft":
        return DraftModelSpeculation(
            kv_cache,
            num_speculative_tokens=config.num_speculative_tokens,
            max_num_seqs=max_num_seqs,
            context_length=draft_context_length,
        )

    def new_drafter() -> Drafter:
        return PromptLookup(
            lookup_min=config.prompt_lookup_min, lookup_max=config.prompt_lookup_max
        )

    return AdaptiveSpeculation(
        kv_cache,
        new_drafter,
        num_speculative_tokens=config.num_speculative_tokens,
        max_num_seqs=max_num_seqs,
    )
