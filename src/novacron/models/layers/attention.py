"""Self-attention of one layer: projections, norms and rotation around kernels' paged attention.

Shapes: T tokens, D hidden size, N query heads, K key-value heads, H head dim.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from novacron.kernels.metadata import KVLayer
from novacron.kernels.table import AttentionPlan, Kernels, Rotation
from novacron.models.decoder_config import DecoderConfig
from novacron.models.layers.linear import Columns, FusedColumnLinear, RowLinear
from novacron.models.layers.norm import RMSNorm
from novacron.models.weight_slots import WeightSlot
from novacron.parallel.communicator import Communicator
from novacron.parallel.groups import ParallelGroup


class Attention(nn.Module):
    """Grouped-query attention. A rank holds some query heads and the key-value heads they need;
    with more ranks than key-value heads, neighbours hold the same one."""

    def __init__(
        self,
        config: DecoderConfig,
        group: ParallelGroup,
        communicator: Communicator,
        kernels: Kernels,
    ) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.scale = config.attention_scale
        self.softcap = config.attention_softcap
        heads = group.slice_of(config.num_heads)
        kv_heads = local_kv_heads(config.num_kv_heads, group)
        self.num_heads = group.share_of(config.num_heads)
        self.num_kv_heads = num_local_kv_heads(config.num_kv_heads, group)
        self.qkv_proj = FusedColumnLinear(
            config.hidden_size,
            [
                self._columns("q_proj", config.num_heads, heads),
                self._columns("k_proj", config.num_kv_heads, kv_heads),
                self._columns("v_proj", config.num_kv_heads, kv_heads),
            ],
            bias=config.qkv_bias,
        )
        self.o_proj = RowLinear(
            config.num_heads * config.head_dim,
            config.hidden_size,
            group,
            communicator,
            bias=config.output_bias,
        )
        self.q_norm = self.k_norm = None
        if config.qk_norm:
            offset = config.norm_offset
            self.q_norm = RMSNorm(config.head_dim, config.norm_eps, kernels, offset=offset)
            self.k_norm = RMSNorm(config.head_dim, config.norm_eps, kernels, offset=offset)

    def _columns(self, name: str, num_heads: int, heads: slice) -> Columns:
        size = self.head_dim
        return Columns(name, num_heads * size, slice(heads.start * size, heads.stop * size))

    def forward(
        self,
        x_TD: Tensor,
        rotate: Rotation,
        plan: AttentionPlan,
        cache: KVLayer,
        add_to: Tensor | None = None,
    ) -> Tensor:
        """What the tokens gather from those before them, or `add_to` with that added in place."""
        qkv_TXH = self.qkv_proj(x_TD).view(x_TD.shape[0], -1, self.head_dim)
        num_turned = self.num_heads + self.num_kv_heads
        qk = qkv_TXH[:, :num_turned]
        if self.q_norm is None or self.k_norm is None:
            qk = rotate(qk)
            q, k = qk[:, : self.num_heads], qk[:, self.num_heads :]
        else:
            q = rotate(self.q_norm(qk[:, : self.num_heads]))
            k = rotate(self.k_norm(qk[:, self.num_heads :]))
        seen = plan.attend(q, k, qkv_TXH[:, num_turned:], cache, self.scale, self.softcap)
        out_TD: Tensor = self.o_proj(seen, add_to)
        return out_TD

    def weight_slots(self, prefix: str) -> Iterator[WeightSlot]:
        yield from self.qkv_proj.weight_slots(prefix)
        yield from self.o_proj.weight_slots(f"{prefix}.o_proj")
        if self.q_norm is not None and self.k_norm is not None:
            yield from self.q_norm.weight_slots(f"{prefix}.q_norm")
            yield from self.k_norm.weight_slots(f"{prefix}.k_norm")


def num_local_kv_heads(num_kv_heads: int, group: ParallelGroup) -> int:
    return max(1, num_kv_heads // group.size)


def local_kv_heads(num_kv_heads: int, group: ParallelGroup) -> slice:
    """The key-value heads that this rank's query heads read."""
    if num_kv_heads >= group.size:
        return group.slice_of(num_kv_heads)
    if group.size % num_kv_heads:
        raise ValueError(f"{num_kv_heads} key-value heads cannot be spread over {group.size} ranks")
    head = group.rank * num_kv_heads // group.size
    return slice(head, head + 1)
