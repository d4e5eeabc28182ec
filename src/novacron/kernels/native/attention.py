"""Paged attention by the native kernels: one call per layer, for any mix of chunks and decodes.

Inside a block of the cache, keys and values lie as csrc/kernels/kv_formats.h tells, not as with
torch; the blocks are as large.
"""

from __future__ import annotations

from torch import Tensor

from novacron.kernels.kv_format import KVFormat
from novacron.kernels.metadata import AttentionMetadata, KVLayer
from novacron.kernels.native.library import (
    ATTEND,
    DATA_TYPES,
    KV_FORMATS,
    STORE,
    AttentionCall,
    KVCache,
    NativeContext,
)


class NativeAttentionPlan:
    """What the calls of one step have in common, for one window."""

    def __init__(self, context: NativeContext, step: AttentionMetadata, window: int | None) -> None:
        self._context = context
        self._step = step  # whose tensors must live as long as the call below
        assert step.rows_R3.is_contiguous()
        assert step.block_tables_RB.stride(1) == step.slots_T.stride(0) == 1
        self._call = AttentionCall(
            rows=step.rows_R3.data_ptr(),
            block_tables=step.block_tables_RB.data_ptr(),
            slots=step.slots_T.data_ptr(),
            num_rows=step.rows_R3.shape[0],
            block_size=step.block_size,
            table_stride=step.block_tables_RB.stride(0),
            window=window or 0,
        )

    def attend(
        self,
        q_TNH: Tensor,
        k_TKH: Tensor,
        v_TKH: Tensor,
        cache: KVLayer,
        scale: float,
        softcap: float | None,
    ) -> Tensor:
        num_tokens, num_heads, head_dim = q_TNH.shape
        assert q_TNH.stride(2) == k_TKH.stride(2) == v_TKH.stride(2) == 1
        out = self._context.stream.empty((num_tokens, num_heads * head_dim), q_TNH.dtype)
        call = self._call
        call.query, call.key, call.value = q_TNH.data_ptr(), k_TKH.data_ptr(), v_TKH.data_ptr()
        call.key_cache = _described(cache.key, cache.format.key)
        call.value_cache = _described(cache.value, cache.format.value)
        call.out = out.data_ptr()
        call.num_tokens, call.num_heads, call.head_dim = num_tokens, num_heads, head_dim
        call.num_kv_heads = cache.key.shape[0]
        call.query_token_stride, call.query_head_stride = q_TNH.stride(0), q_TNH.stride(1)
        call.key_token_stride, call.key_head_stride = k_TKH.stride(0), k_TKH.stride(1)
        call.value_token_stride, call.value_head_stride = v_TKH.stride(0), v_TKH.stride(1)
        call.scale, call.softcap = scale, softcap or 0.0
        call.type = DATA_TYPES[q_TNH.dtype]
        if self._step.meet is None:
            self._submit(STORE | ATTEND)
        else:
            self._submit(STORE)
            self._step.meet(num_tokens)
            self._submit(ATTEND)
        return out

    def _submit(self, parts: int) -> None:
        self._call.parts = parts
        self._context.stream.submit(self._call)


def _described(stored_KBX: Tensor, kind: KVFormat) -> KVCache:
    head_stride, block_stride, _ = stored_KBX.stride()
    return KVCache(stored_KBX.data_ptr(), head_stride, block_stride, KV_FORMATS[kind.dtype])
