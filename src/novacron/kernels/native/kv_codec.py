"""Rounding blocks of the KV cache for tiers below the device."""

from __future__ import annotations

from ctypes import byref

from novacron.kernels.native.library import KVCodecCall, NativeContext


def code_kv(context: NativeContext, call: KVCodecCall) -> None:
    """On the calling thread, whatever others do meanwhile."""
    context.library.novacron_code_kv(context.pointer, byref(call))
