from __future__ import annotations

import os

import torch

from novacron.parallel.shared_memory import Piece, SharedMemory

PIECES = {
    "bytes": Piece((3,), torch.uint8),
    "matrix": Piece((5, 1100), torch.float32),
    "numbers": Piece((7,), torch.int64),
}


def test_what_one_writes_the_other_reads() -> None:
    one = SharedMemory(PIECES)
    other = SharedMemory(PIECES, os.dup(one.descriptor))
    assert not any(tensor.any() for tensor in other.tensors.values())
    for number, (name, piece) in enumerate(PIECES.items(), 1):
        assert (one.tensors[name].shape, one.tensors[name].dtype) == piece
        one.tensors[name].fill_(number)
    assert {name: set(t.flatten().tolist()) for name, t in other.tensors.items()} == {
        "bytes": {1}, "matrix": {2}, "numbers": {3}
    }  # fmt: skip


def test_each_piece_begins_on_a_page_and_outlives_the_descriptor() -> None:
    memory = SharedMemory(PIECES)
    memory.close_descriptor()
    memory.tensors["numbers"].fill_(4)
    assert memory.tensors["numbers"].sum() == 28
    assert all(tensor.data_ptr() % 4096 == 0 for tensor in memory.tensors.values())
