"""Products whose parts several ranks have, as calls: the sum of the parts, bias and residual."""

from __future__ import annotations

from typing import cast

from torch import Tensor

from novacron.kernels.native.experts import RankPartials
from novacron.kernels.native.library import AddPartialsCall, NativeContext
from novacron.kernels.native.linear import NativeLinear


def submit_row_product(
    context: NativeContext,
    partials: RankPartials,
    product: object,
    x: Tensor,
    bias: Tensor | None,
    add_to: Tensor | None,
) -> Tensor:
    """As Communicator.row_product: this rank's part goes where `partials` has room for it, and its
    call joins those of all."""
    rows, join = x.shape[0], AddPartialsCall.from_buffer_copy(partials.join)
    own_TD = partials.own_RD[:rows]
    cast(NativeLinear, product).into(x, own_TD, ranks=partials.num_ranks)
    out = context.stream.empty(own_TD.shape, x.dtype) if add_to is None else add_to
    assert (out.shape, out.dtype, out.stride(1)) == (own_TD.shape, x.dtype, 1)
    join.bias = None if bias is None else bias.data_ptr()
    join.residual = None if add_to is None else out.data_ptr()
    join.out, join.rows = out.data_ptr(), rows
    join.residual_stride = join.out_stride = out.stride(0)
    context.stream.submit(join)
    return out
