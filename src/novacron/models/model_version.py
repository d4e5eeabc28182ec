"""The digest that names a model's content: KV blocks of one version are never used by another.

Small checkpoints are hashed whole. Of a large one a digest covers config.json, every file's size,
time of change and header (all names, types, shapes and offsets), and samples of the content spread
so densely that any change of a whole tensor shows. What the samples cannot show, a few rows edited
in place, changes the time of the file. The price is that copies of a large model with different
times share no cached blocks.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from pathlib import Path

import blake3

from novacron.models.weight_files import WeightFiles

_WHOLE_UP_TO_BYTES = 2**30
_SAMPLE_BYTES = 4096
_SAMPLE_EVERY_BYTES = 2**20
_DIGEST_BYTES = 16


def model_version(checkpoint: WeightFiles) -> str:
    """A digest of the configuration and the weights, as hexadecimal text."""
    hasher = blake3.blake3(max_threads=blake3.blake3.AUTO)
    if checkpoint.settings is not None:
        hasher.update(checkpoint.settings.read_bytes())
    sizes = [path.stat().st_size for path in checkpoint.files]
    is_small = sum(sizes) <= _WHOLE_UP_TO_BYTES
    for path, size in zip(checkpoint.files, sizes, strict=True):
        hasher.update(f"\x00{path.name}\x00{size}\x00".encode())
        if is_small:
            hasher.update_mmap(path)
        else:
            hasher.update(str(path.stat().st_mtime_ns).encode())
            for piece in _samples(path, checkpoint.header_bytes(path)):
                hasher.update(piece)
    return hasher.hexdigest(_DIGEST_BYTES)


def weights_identity(digest: str, precision_identity: str) -> str:
    """Of weights as they compute: rounded ones make other keys and values."""
    return "-".join(filter(None, (digest, precision_identity)))


def _samples(path: Path, header_bytes: int) -> Iterable[bytes]:
    """The header of a file, then a piece of its content every so often."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        yield content[:header_bytes]
        for start in range(header_bytes, len(content), _SAMPLE_EVERY_BYTES):
            yield content[start : start + _SAMPLE_BYTES]
