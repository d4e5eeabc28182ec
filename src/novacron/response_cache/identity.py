"""What makes two calls ask for the same: the key of the exact cache. Pure.

Everything that an answer depends on, and nothing else. The prompt counts as its token ids, into
which the template has written all messages, tools and roles, case and spaces included; next to it
stand all sampling parameters, the model in the precision it is served in, and the tenant. Ids,
times and priorities are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import blake3
import msgspec

from novacron.records.output import ModelSpec
from novacron.records.request import Pooling, Request, SamplingParams

_KEY_CONTEXT: Final = "novacron 2026-11 key of a cached response"
_TENANT_CONTEXT: Final = "novacron 2026-11 tenant of a cached response"
_TENANT_BYTES: Final = 8


class Key(NamedTuple):
    """`tenant` is a tag, so that what belongs to one can be found and dropped."""

    tenant: str
    digest: str


class ModelIdentity(msgspec.Struct, frozen=True, array_like=True):
    """The served model as far as answers depend on it."""

    version: str
    dtype: str
    quantization: str
    kv_identity: str
    device: str
    max_model_len: int  # where no limit is given, answers end here
    eos_token_ids: tuple[int, ...]


class _Wanted(msgspec.Struct, frozen=True, array_like=True):
    prompt_token_ids: tuple[int, ...]
    sampling: SamplingParams
    pooling: Pooling | None
    salt: str


class _Identity(msgspec.Struct, frozen=True, array_like=True):
    tenant: str
    model: ModelIdentity
    wanted: tuple[_Wanted, ...]


def model_identity(spec: ModelSpec) -> ModelIdentity:
    return ModelIdentity(
        version=spec.model_version,
        dtype=spec.dtype,
        quantization=spec.quantization,
        kv_identity=spec.kv_identity,
        device=spec.device,
        max_model_len=spec.max_model_len,
        eos_token_ids=spec.eos_token_ids,
    )


def key_of(tenant: str, model: ModelIdentity, requests: Sequence[Request]) -> Key:
    wanted = tuple(
        _Wanted(
            request.prompt_token_ids,
            _in_order(request.sampling),
            request.pooling,
            request.cache_salt,
        )
        for request in requests
    )
    data = _encoder.encode(_Identity(tenant, model, wanted))
    return Key(tenant_tag(tenant), blake3.blake3(data, derive_key_context=_KEY_CONTEXT).hexdigest())


def _in_order(sampling: SamplingParams) -> SamplingParams:
    if not sampling.logit_bias:
        return sampling
    return msgspec.structs.replace(sampling, logit_bias=dict(sorted(sampling.logit_bias.items())))


def tenant_tag(tenant: str) -> str:
    data = tenant.encode("utf-8", "surrogatepass")
    digest = blake3.blake3(data, derive_key_context=_TENANT_CONTEXT).digest(_TENANT_BYTES)
    return digest.hex()


def is_deterministic(requests: Sequence[Request]) -> bool:
    """Whether computing it again would give the same: greedy, an embedding, or a seed was given."""
    return all(
        request.pooling is not None
        or request.sampling.temperature == 0
        or request.sampling.seed is not None
        for request in requests
    )


_encoder = msgspec.msgpack.Encoder()
