"""Reading headers: sound ones as the `gguf` package does, of all others a reason."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from novacron.errors import ModelLoadError
from novacron.models.gguf_file import GGUFFile
from novacron.models.model_files import read_model_files
from novacron.models.registry import find_family
from novacron.testing.gguf_models import write_gguf
from novacron.testing.tiny_models import make_tiny_model

METADATA = [
    ("a.u8", 200, gguf.GGUFValueType.UINT8),
    ("a.i8", -3, gguf.GGUFValueType.INT8),
    ("a.u16", 60000, gguf.GGUFValueType.UINT16),
    ("a.i16", -30000, gguf.GGUFValueType.INT16),
    ("a.u32", 2**32 - 1, gguf.GGUFValueType.UINT32),
    ("a.i32", -(2**31), gguf.GGUFValueType.INT32),
    ("a.u64", 2**64 - 1, gguf.GGUFValueType.UINT64),
    ("a.i64", -(2**63), gguf.GGUFValueType.INT64),
    ("a.f32", 0.5, gguf.GGUFValueType.FLOAT32),
    ("a.f64", 1e300, gguf.GGUFValueType.FLOAT64),
    ("a.flag", True, gguf.GGUFValueType.BOOL),
    ("a.text", "z\u00e4hlen", gguf.GGUFValueType.STRING),
    ("a.texts", ["", "b", "\u00fc"], gguf.GGUFValueType.ARRAY),
    ("a.numbers", [1, -2, 3], gguf.GGUFValueType.ARRAY),
    ("a.flags", [True, False], gguf.GGUFValueType.ARRAY),
]


@pytest.mark.parametrize("alignment", [None, 64])
@pytest.mark.parametrize("version", [2, 3])
def test_metadata_and_places(tmp_path: Path, version: int, alignment: int | None) -> None:
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(str(path), "llama")
    if alignment:
        writer.add_custom_alignment(alignment)
    for key, value, kind in METADATA:
        writer.add_key_value(key, value, kind)
    arrays = {
        "one": np.arange(5, dtype=np.float32),
        "two": np.arange(6, dtype=np.float16).reshape(2, 3),
    }
    for name, array in arrays.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    content = bytearray(path.read_bytes())
    content[4:8] = struct.pack("<I", version)
    path.write_bytes(content)

    found = GGUFFile(path)
    assert found.metadata["general.architecture"] == "llama"
    assert {key: found.metadata[key] for key, _, _ in METADATA} == {
        key: value for key, value, _ in METADATA
    }
    for name, array in arrays.items():
        info = found.tensors[name]
        assert info.shape == array.shape
        assert content[info.start : info.start + array.nbytes] == array.tobytes()
    assert found.header_bytes == found.tensors["one"].start


def header(*parts: bytes, version: int = 3, tensors: int = 0, entries: int = 0) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, entries) + b"".join(parts)


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def array_of(kind: int, length: int) -> bytes:
    return text("k") + struct.pack("<IIQ", 9, kind, length)


def tensor(name: str, *shape: int, kind: int = 0, place: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, place)


UNREADABLE = {
    "empty": (b"", "cannot be read"),
    "another format": (b"PK\x03\x04" + bytes(99), "no GGUF file"),
    "version 1": (header(version=1), "version 1 of the format"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "no more than a mark": (b"GGUF", "ends within its header"),
    "tensors without end": (header(tensors=2**63), "claims to hold"),
    "metadata without end": (header(entries=2**63), "entries"),
    "a text without end": (header(struct.pack("<Q", 2**63), entries=1), "ends within"),
    "texts without end": (header(array_of(8, 2**60), bytes(99), entries=1), "entries"),
    "more texts than there are": (header(array_of(8, 2**20), bytes(99), entries=1), "ends within"),
    "a long text among others": (
        header(array_of(8, 2), struct.pack("<Q", 2**62), bytes(9), entries=1),
        "ends within",
    ),
    "numbers without end": (header(array_of(10, 2**22), bytes(99), entries=1), "ends within"),
    "an array of arrays": (header(array_of(9, 1), bytes(99), entries=1), "unknown type 9"),
    "a type that is none": (header(text("k"), bytes([77, 0, 0, 0]), entries=1), "type 77"),
    "a key twice": (
        header(*[text("k") + struct.pack("<IB", 0, 1)] * 2, entries=2),
        "'k' occurs twice",
    ),
    "no text": (header(struct.pack("<Q", 2), b"\xff\xfe", entries=1), "not UTF-8"),
    "no text among others": (
        header(array_of(8, 1), struct.pack("<Q", 2), b"\xff\xfe", entries=1),
        "not UTF-8",
    ),
    "a tensor twice": (header(*[tensor("t", 1)] * 2, bytes(64), tensors=2), "same name"),
    "a tensor anywhere": (header(tensor("t", 1, place=3), bytes(64), tensors=1), "not aligned"),
    "too many dimensions": (header(tensor("t", *[1] * 9), tensors=1), "9 dimensions"),
    "no dimensions": (header(tensor("t"), tensors=1), "0 dimensions"),
    "no alignment": (
        header(text("general.alignment"), struct.pack("<II", 4, 0), entries=1),
        "alignment is 0",
    ),
    "an odd alignment": (
        header(text("general.alignment"), struct.pack("<II", 4, 7), entries=1),
        "alignment is 7",
    ),
}


@pytest.mark.parametrize(("content", "reason"), UNREADABLE.values(), ids=UNREADABLE.keys())
def test_what_is_unreadable_is_told_at_once(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    start_s = time.process_time()
    with pytest.raises(ModelLoadError, match=reason) as caught:
        GGUFFile(path)
    assert str(path) in str(caught.value)
    assert time.process_time() - start_s < 5


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="There is no file"):
        GGUFFile(tmp_path / "m.gguf")
    with pytest.raises(ModelLoadError, match="cannot be read"):
        GGUFFile(tmp_path)


class Sound(NamedTuple):
    path: Path
    header_bytes: int


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Sound:
    folder = tmp_path_factory.mktemp("llama")
    make_tiny_model("llama", folder / "model", num_hidden_layers=1)
    path = write_gguf(folder / "model", folder / "m.gguf", "Q8_0")
    return Sound(path, GGUFFile(path).header_bytes)


@pytest.fixture(scope="module")
def open_all(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bytes], None]:
    """Opens content as a model, up to where weights would be loaded."""
    path = tmp_path_factory.mktemp("broken") / "m.gguf"

    def open_content(content: bytes) -> None:
        path.write_bytes(content)
        files = read_model_files(path)
        find_family(files.config)[1].read_config(files.config)
        weights = files.open_weights()
        for name in weights.names:
            assert weights.read(name, (slice(0, 1),) * len(weights.shape(name))).numel() == 1

    return open_content


def test_a_file_cut_short_anywhere(sound: Sound, open_all: Callable[[bytes], None]) -> None:
    content = sound.path.read_bytes()
    open_all(content)
    in_header = range(0, sound.header_bytes, 97)
    for end in (*in_header, *range(sound.header_bytes, len(content), 5003), len(content) - 1):
        with pytest.raises(ModelLoadError, match=r"m\.gguf"):
            open_all(content[:end])


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_damage_in_the_header(
    sound: Sound, open_all: Callable[[bytes], None], data: st.DataObject
) -> None:
    """Any bytes may be anything: what then cannot be opened is refused, with no other error."""
    content = bytearray(sound.path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, sound.header_bytes))
        damage = data.draw(
            st.binary(min_size=1, max_size=8)
            | st.sampled_from([b"\xff" * 8, bytes(8), b"\x00\x00\x00\x80"])
        )
        content[place : place + len(damage)] = damage
    with suppress(ModelLoadError):
        open_all(bytes(content))
