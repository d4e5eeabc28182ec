"""What a caller asks of the engine. Plain frozen values; no torch.

Built by the gateway and by LLM, read by every layer below. Their mutable half, RequestState,
exists only inside scheduler/.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import msgspec

_LARGEST_SEED = 2**63 - 1
_GOLDEN_RATIO_64 = 0x9E3779B97F4A7C15  # odd, and far from any pattern in seeds that people choose


class FinishReason(StrEnum):
    """Why a request ended. Every accepted request ends with exactly one."""

    STOP = "stop"  # end-of-sequence token, stop token or stop string
    LENGTH = "length"  # max_tokens, or the context of the model, is used up
    ABORT = "abort"  # the client asked for it, or went away
    ERROR = "error"  # the engine could not go on; the output carries the message
    CONTENT_FILTER = "content_filter"  # a guardian did not let the rest of the answer pass


class StructuredOutput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A constraint on the text: `spec` is JSON schema text, a regex, or a Lark grammar.

    json_object ignores `spec`; choice holds a JSON list of strings.
    """

    kind: Literal["json_object", "json_schema", "regex", "choice", "grammar"]
    spec: str = ""


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How to choose tokens and when to stop. Values are checked by
    `validate_sampling`.

    The random number for the token at position p comes from (seed, p) alone, so a request gives
    the same tokens wherever, and beside whatever, it runs. `logprobs` and `prompt_logprobs` count
    alternatives per position (None: none wanted, 0: only the chosen token's).
    """

    max_tokens: int | None = None  # None: as many as the context holds
    min_tokens: int = 0
    temperature: float = 1.0  # 0: greedy
    top_k: int = 0  # 0: off
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: dict[int, float] = {}
    seed: int | None = None  # None: drawn when the request is accepted
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    structured_output: StructuredOutput | None = None
    skip_special_tokens: bool = True

    def for_copy(self, copy: int) -> SamplingParams:
        """For the completion number `copy`, from 0, of n: the same with a seed of its own.

        The first keeps the seed. Neighbouring seeds do not share completions.
        """
        if self.seed is None or copy == 0:
            return self
        seed = (self.seed ^ copy * _GOLDEN_RATIO_64) & _LARGEST_SEED
        return msgspec.structs.replace(self, seed=seed)


Pooling = Literal["mean", "last"]


class Request(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One sequence to be computed. `n` completions of a prompt are n Requests that share blocks.

    `pooling` set: an embedding is wanted instead of tokens. `cache_salt` separates tenants: blocks
    are shared only between requests of the same salt. `cache_scope` and `session` are 8 bytes, or
    none, that name whose blocks they are and which conversation the request goes on with.
    `priority`: lower runs earlier, as in vLLM. `tenant`: whose request it is, and `weight` its
    share beside others; where shares are fair, requests of one tenant share one. `ttft_slo_s` and
    `tpot_slo_s`: within which time its first token is wanted, counted from its arrival, and each
    further one on average; 0: not said.
    `output_token_ids` are tokens generated before (a continued stream): they count as output for
    penalties, random numbers and limits, and are computed like a prompt. `variant`: which of the
    loaded precisions of the model computes it; empty: the one that new requests go to. `regions`:
    where it and its blocks may be; none: anywhere. `uncounted`: it is nobody's, and no total tells
    of it.
    """

    request_id: str
    prompt_token_ids: tuple[int, ...]
    sampling: SamplingParams
    arrival_time_s: float  # time.monotonic()
    priority: int = 0
    tenant: str = ""
    weight: float = 1.0
    ttft_slo_s: float = 0.0
    tpot_slo_s: float = 0.0
    cache_salt: str = ""
    cache_scope: bytes = b""
    session: bytes = b""
    pooling: Pooling | None = None
    output_token_ids: tuple[int, ...] = ()
    variant: str = ""
    regions: tuple[str, ...] = ()
    uncounted: bool = False
