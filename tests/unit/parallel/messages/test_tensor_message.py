"""Messages between hosts: what was sent, or an error, and never another tensor."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from novacron.parallel.messages.activation_codec import pack, unpack_into
from novacron.parallel.messages.message_order import IncomingLane, LaneBroken, OutgoingLane
from novacron.parallel.messages.tensor_message import (
    HEADER_BYTES,
    MESSAGE_VERSION,
    Compression,
    Dtype,
    Kind,
    MessageError,
    OtherMessageVersion,
    Priority,
    TensorHeader,
    open_message,
    seal,
)

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.uint8)
COUNTS = st.integers(0, 2**64 - 1)


@st.composite
def messages(draw: st.DrawFn) -> tuple[TensorHeader, bytes]:
    dtype = draw(st.sampled_from(list(Dtype)))
    header = TensorHeader(
        kind=draw(st.sampled_from(list(Kind))),
        priority=draw(st.sampled_from(list(Priority))),
        dtype=dtype,
        shape=tuple(draw(st.lists(st.integers(0, 4), max_size=4))),
        source=draw(st.integers(0, 2**16 - 1)),
        target=draw(st.integers(0, 2**16 - 1)),
        layer=draw(st.integers(0, 2**32 - 1)),
        epoch=draw(COUNTS),
        sequence=draw(COUNTS),
        step=draw(COUNTS),
        sent_ns=draw(COUNTS),
        deadline_ns=draw(COUNTS),
    )
    size = header.num_values * dtype.itemsize
    return header, draw(st.binary(min_size=size, max_size=size))


@given(messages())
def test_what_was_sealed_is_opened(message: tuple[TensorHeader, bytes]) -> None:
    header, payload = message
    head = seal(header, payload)
    assert len(head) == HEADER_BYTES
    assert open_message(head, payload) == header


@given(messages(), st.data())
def test_no_flipped_bit_passes(message: tuple[TensorHeader, bytes], data: st.DataObject) -> None:
    header, payload = message
    head = seal(header, payload)
    whole = bytearray(head + payload)
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    whole[bit // 8] ^= 1 << bit % 8
    with pytest.raises(MessageError):
        open_message(bytes(whole[:HEADER_BYTES]), bytes(whole[HEADER_BYTES:]))


@given(messages(), st.data())
def test_nothing_cut_off_or_added_passes(
    message: tuple[TensorHeader, bytes], data: st.DataObject
) -> None:
    header, payload = message
    head = seal(header, payload)
    cut = data.draw(st.integers(0, HEADER_BYTES - 1))
    with pytest.raises(MessageError):
        open_message(head[:cut], payload)
    with pytest.raises(MessageError):
        open_message(head, payload + b"\0")
    if payload:
        with pytest.raises(MessageError):
            open_message(head, payload[: data.draw(st.integers(0, len(payload) - 1))])


@given(messages(), messages())
def test_a_header_goes_with_its_own_payload_only(
    one: tuple[TensorHeader, bytes], other: tuple[TensorHeader, bytes]
) -> None:
    assume(one[1] != other[1])
    with pytest.raises(MessageError):
        open_message(seal(*one), other[1])


@given(st.binary(max_size=2 * HEADER_BYTES), st.binary(max_size=64))
def test_noise_is_no_message(head: bytes, payload: bytes) -> None:
    with pytest.raises(MessageError):
        open_message(head, payload)


@given(messages(), st.integers(0, 2**16 - 1))
def test_another_version_is_told_apart(message: tuple[TensorHeader, bytes], version: int) -> None:
    """Whatever follows in its header, of which this version knows nothing."""
    assume(version != MESSAGE_VERSION)
    head = seal(*message)
    other = head[:4] + version.to_bytes(2, "little") + head[6:-3]
    with pytest.raises(OtherMessageVersion, match=f"version {version}"):
        open_message(other, message[1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_arrive_bit_for_bit(dtype: torch.dtype) -> None:
    x = torch.arange(12).view(3, 4).to(dtype)
    packed = pack(x)
    header = TensorHeader(kind=Kind.FORWARD, dtype=packed.dtype, shape=packed.shape)
    out = torch.zeros_like(x)
    assert unpack_into(open_message(seal(header, packed.payload), packed.payload),
                       packed.payload, out) == 0.0  # fmt: skip
    assert torch.equal(out, x)


def test_nan_and_infinity_arrive_as_they_are() -> None:
    x = torch.tensor([[float("nan"), float("inf"), -0.0]])
    packed, out = pack(x), torch.zeros(1, 3)
    header = TensorHeader(kind=Kind.FORWARD, dtype=packed.dtype, shape=packed.shape)
    unpack_into(header, packed.payload, out)
    assert out.view(torch.int32).tolist() == x.view(torch.int32).tolist()


@pytest.mark.parametrize(
    "out", [torch.zeros(4, 3), torch.zeros(3, 4, dtype=torch.int64), torch.zeros(12)]
)
def test_another_tensor_than_was_due_is_refused(out: torch.Tensor) -> None:
    packed = pack(torch.ones(3, 4))
    header = TensorHeader(kind=Kind.FORWARD, dtype=packed.dtype, shape=packed.shape)
    with pytest.raises(MessageError, match="was due"):
        unpack_into(header, packed.payload, out)


@given(st.integers(0, 5), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_int8_is_the_nearest_step_and_tells_its_error(rows: int, size: int, seed: int) -> None:
    x_TD = torch.from_numpy(np.random.default_rng(seed).normal(0, 3, (rows, size))).float()
    packed = pack(x_TD, Compression.INT8, error=1e-9)
    header = TensorHeader(
        kind=Kind.FORWARD, dtype=packed.dtype, shape=packed.shape, compression=packed.compression
    )
    out_TD = torch.empty_like(x_TD)
    told = unpack_into(open_message(seal(header, packed.payload), packed.payload),
                       packed.payload, out_TD)  # fmt: skip
    if rows:
        steps_T = x_TD.abs().amax(1, keepdim=True) / 127
        assert bool(((out_TD - x_TD).abs() <= steps_T * 0.501).all())
        real = float((out_TD - x_TD).norm() / x_TD.norm())
        assert told == pytest.approx(max(real, 1e-9), rel=1e-3, abs=1e-7)
    assert len(packed.payload) == 4 + 4 * rows + rows * size


def test_the_worst_error_of_a_way_is_told_at_its_end() -> None:
    packed = pack(torch.ones(2, 8), Compression.INT8, error=0.25)
    assert packed.error == 0.25


def test_rows_that_are_not_finite_stay_so_in_int8() -> None:
    x_TD = torch.ones(3, 4)
    x_TD[1, 2] = float("nan")
    x_TD[2, 0] = float("inf")
    packed, out_TD = pack(x_TD, Compression.INT8), torch.zeros(3, 4)
    header = TensorHeader(
        kind=Kind.FORWARD, dtype=packed.dtype, shape=packed.shape, compression=packed.compression
    )
    unpack_into(header, packed.payload, out_TD)
    assert out_TD.isfinite().all(1).tolist() == [True, False, False]


def of(header: TensorHeader, lane: OutgoingLane) -> TensorHeader:
    return open_message(lane.seal(header, b"", 7), b"")


EMPTY = TensorHeader(kind=Kind.ORDER, shape=(0,))


def test_a_lane_takes_its_messages_in_their_order() -> None:
    out, into = OutgoingLane(5, 0, 1), IncomingLane(5, 0, 1)
    sent = [of(EMPTY, out) for _ in range(3)]
    assert all(into.take(header, 10) for header in sent)
    assert sent[2].sent_ns == 7


def test_what_is_lost_or_comes_twice_breaks_the_lane() -> None:
    out = OutgoingLane(5, 0, 1)
    first, second = of(EMPTY, out), of(EMPTY, out)
    with pytest.raises(LaneBroken, match="message 1 came where 0 was due"):
        IncomingLane(5, 0, 1).take(second, 10)
    into = IncomingLane(5, 0, 1)
    into.take(first, 10)
    with pytest.raises(LaneBroken, match="message 0 came where 1"):
        into.take(first, 10)


def test_another_epoch_is_not_taken_and_another_rank_not_believed() -> None:
    into = IncomingLane(5, 0, 1)
    assert not into.take(of(EMPTY, OutgoingLane(4, 0, 1)), 10)
    with pytest.raises(LaneBroken, match="from rank 2 to rank 1"):
        into.take(of(EMPTY, OutgoingLane(5, 2, 1)), 10)


def test_what_comes_after_its_deadline_is_of_no_use() -> None:
    timed = TensorHeader(kind=Kind.ORDER, shape=(0,), deadline_ns=100)
    out = OutgoingLane(5, 0, 1)
    into = IncomingLane(5, 0, 1)
    assert into.take(of(timed, out), 100)
    with pytest.raises(LaneBroken, match="after its deadline"):
        into.take(of(timed, out), 101)
