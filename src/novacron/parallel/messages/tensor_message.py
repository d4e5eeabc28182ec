"""TensorMessage: what ranks on different hosts send each other, as bytes. Pure.

A header of fixed size, then the payload as it is: no pickle, nothing that could be run. The
checksum, the first eight bytes of BLAKE3 over all else, is checked before any field is believed;
so what was cut off, changed or glued together on its way is refused, and never a tensor.

    magic version kind priority dtype compression dims - | source target layer | epoch sequence step
    sent deadline | shape (4) | length checksum |  payload

Times are nanoseconds of the clock of the group: that of rank 0. All numbers are little-endian.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import blake3

MESSAGE_VERSION: Final = 4  # of this format, and of the orders in executor/hosts/orders.py
NO_DEADLINE: Final = 0
MOST_DIMS: Final = 4
LARGEST_PAYLOAD_BYTES: Final = 2**32

Bytes = bytes | bytearray | memoryview

_MAGIC: Final = b"NCTM"
_FIELDS: Final = struct.Struct("<4sHBBBBBBHHIQQQQQ4QQ")
_CHECKSUM: Final = struct.Struct("<8s")
HEADER_BYTES: Final = _FIELDS.size + _CHECKSUM.size


class Kind(IntEnum):
    ORDER = 1  # msgpack of what ranks tell each other
    FORWARD = 2  # hidden states, to the next stage
    PARTIAL = 3  # what ranks add up or join


class Priority(IntEnum):
    """Who goes first, where several messages wait."""

    CONTROL = 0
    DATA = 1


class Dtype(IntEnum):
    BYTES = 0
    FLOAT32 = 1
    BFLOAT16 = 2
    FLOAT16 = 3
    FLOAT64 = 4
    INT64 = 5

    @property
    def itemsize(self) -> int:
        return _ITEM_BYTES[self]


class Compression(IntEnum):
    NONE = 0
    INT8 = 1  # see activation_codec


_ITEM_BYTES: Final = {
    Dtype.BYTES: 1, Dtype.FLOAT32: 4, Dtype.BFLOAT16: 2, Dtype.FLOAT16: 2, Dtype.FLOAT64: 8,
    Dtype.INT64: 8,
}  # fmt: skip


class MessageError(Exception):
    """These bytes are no message, or not the one that was sent; says why, as half a sentence."""


class OtherMessageVersion(MessageError):
    """The other end is another NovaCron."""


@dataclass(frozen=True, kw_only=True)
class TensorHeader:
    """`shape` and `dtype` are those of the tensor, also where the payload is compressed. `step`
    counts what the message belongs to, `sequence` the messages of its lane."""

    kind: Kind
    priority: Priority = Priority.DATA
    dtype: Dtype = Dtype.BYTES
    compression: Compression = Compression.NONE
    shape: tuple[int, ...] = ()
    source: int = 0
    target: int = 0
    layer: int = 0
    epoch: int = 0
    sequence: int = 0
    step: int = 0
    sent_ns: int = 0
    deadline_ns: int = NO_DEADLINE

    @property
    def num_values(self) -> int:
        return math.prod(self.shape)

    @property
    def payload_bytes(self) -> int:
        """What a tensor of this shape takes in this form."""
        if self.compression is Compression.INT8:
            rows = math.prod(self.shape[:-1])
            return 4 + 4 * rows + self.num_values
        return self.num_values * self.dtype.itemsize

    def is_late(self, now_ns: int) -> bool:
        return self.deadline_ns != NO_DEADLINE and now_ns > self.deadline_ns


def seal(header: TensorHeader, payload: Bytes) -> bytes:
    """The bytes of the header that go before this payload."""
    data = memoryview(payload).cast("B")
    assert len(header.shape) <= MOST_DIMS
    assert len(data) == header.payload_bytes, "the payload has another size than its shape"
    shape = (*header.shape, *(0,) * (MOST_DIMS - len(header.shape)))
    fields = _FIELDS.pack(
        _MAGIC,
        MESSAGE_VERSION,
        header.kind,
        header.priority,
        header.dtype,
        header.compression,
        len(header.shape),
        0,
        header.source,
        header.target,
        header.layer,
        header.epoch,
        header.sequence,
        header.step,
        header.sent_ns,
        header.deadline_ns,
        *shape,
        len(data),
    )
    return fields + _checksum(fields, data)


def open_message(head: Bytes, payload: Bytes) -> TensorHeader:
    """What was sealed. Raises MessageError unless these are the bytes that `seal` was given and
    gave, all of them and none beside."""
    start, data = memoryview(head).cast("B"), memoryview(payload).cast("B")
    if len(start) < 6 or bytes(start[:4]) != _MAGIC:
        raise MessageError("it does not begin as messages of NovaCron do")
    version = int.from_bytes(start[4:6], "little")
    if version != MESSAGE_VERSION:
        raise OtherMessageVersion(
            f"it has version {version}, and this end speaks {MESSAGE_VERSION}: install the same "
            "NovaCron on all hosts"
        )
    if len(start) != HEADER_BYTES:
        raise MessageError(f"its header has {len(start)} bytes instead of {HEADER_BYTES}")
    fields = start[: _FIELDS.size]
    if _checksum(fields, data) != bytes(start[_FIELDS.size :]):
        raise MessageError("its checksum is wrong: it was cut off or changed on its way")
    return _read_fields(fields, len(data))


def _read_fields(fields: memoryview, num_bytes: int) -> TensorHeader:
    """Whoever can make a checksum is believed, but still not to be a well-formed NovaCron."""
    (
        _, _, kind, priority, dtype, compression, num_dims, reserved, source, target, layer,
        epoch, sequence, step, sent_ns, deadline_ns, *shape, length,
    ) = _FIELDS.unpack(fields)  # fmt: skip
    if num_dims > MOST_DIMS or reserved or any(shape[num_dims:]):
        raise MessageError("its shape cannot be read")
    try:
        header = TensorHeader(
            kind=Kind(kind),
            priority=Priority(priority),
            dtype=Dtype(dtype),
            compression=Compression(compression),
            shape=tuple(shape[:num_dims]),
            source=source,
            target=target,
            layer=layer,
            epoch=epoch,
            sequence=sequence,
            step=step,
            sent_ns=sent_ns,
            deadline_ns=deadline_ns,
        )
    except ValueError as error:
        raise MessageError(f"it has a field that is not known here: {error}") from None
    if length > LARGEST_PAYLOAD_BYTES or not length == num_bytes == header.payload_bytes:
        raise MessageError(f"it has {num_bytes} bytes, which does not fit its shape")
    return header


def _checksum(fields: Bytes, payload: Bytes) -> bytes:
    return blake3.blake3(fields).update(payload).digest(_CHECKSUM.size)
