"""What KV blocks lose in each level, and what comes of it: `python -m` this file, see kv_codec_job.

A document's full blocks before its judged tokens go through the level; the tokens after them see
what is left, as those of a request do that finds its prefix in such a tier. Imports torch, as the
rest of the bench must not.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
from torch import Tensor

from novacron.bench.forced_job import Refused
from novacron.bench.kv_codec_job import CodecJob, CodecNews, Kept, LevelMeasured
from novacron.config.folders import cache_folder
from novacron.config.kv_compression import KVLevel
from novacron.errors import NovaCronError
from novacron.executor.kv_codecs import codec_of_cache
from novacron.executor.kv_quality import LevelQuality, keep_measurement, measurement_path
from novacron.executor.teacher_forcing import TeacherForcing, load_teacher
from novacron.kv_tiers.codecs.codec import BlockCodec, Loss
from novacron.kv_tiers.tier import Bytes
from novacron.models.model_version import model_version, weights_identity
from novacron.quality.document import DocumentScores
from novacron.quality.estimates import estimate_quality
from novacron.quality.scoring import score_document
from novacron.runner.kv_tensors import KVTensors

_MOST_TIMED_BLOCKS = 256


class _Passage:
    """Sends blocks through a codec, and remembers what they lost; the first ones are kept."""

    def __init__(self, codec: BlockCodec) -> None:
        self._codec = codec
        self.losses: list[Loss] = []
        self.blocks: list[Bytes] = []

    def __call__(self, tensors: KVTensors, block_ids: Sequence[int]) -> None:
        code = np.empty(self._codec.encoded_bytes, np.uint8)
        for block_id in block_ids:
            block = np.empty(tensors.block_bytes, np.uint8)
            tensors.read_block(block_id, block)
            if len(self.blocks) < _MOST_TIMED_BLOCKS:
                self.blocks.append(block.copy())
            self.losses.append(self._codec.encode(block, code))
            self._codec.decode(code, block)
            tensors.write_block(block_id, block)


def study(job: CodecJob) -> Iterator[CodecNews]:
    """Raises ConfigError and ModelLoadError."""
    longest = max(len(document.token_ids) for document in job.documents)
    config = job.variant.config
    blueprint, teacher = load_teacher(config, Path(job.variant.model_path), longest=longest)
    exact = list(teacher.hidden(job.documents))
    found: dict[str, LevelQuality] = {}
    for level in job.levels:
        codec = codec_of_cache(level, teacher.kv_tensors, blueprint)
        passage = _Passage(codec)
        scores = _score(job, teacher, passage, exact, blueprint.config.vocab_size)
        quality = estimate_quality(scores)
        found[level] = LevelQuality(
            top1_agreement=quality.top1_agreement.value,
            kl=quality.kl.value,
            num_tokens=quality.num_tokens,
        )
        yield _measured(level, codec, passage, scores, job.repeats, teacher.kv_tensors.block_size)
    weights = weights_identity(
        model_version(blueprint.checkpoint), teacher.decoder.precision_identity
    )
    path = measurement_path(
        cache_folder(config.model),
        weights,
        teacher.kv_tensors.formats,
        teacher.kv_tensors.block_size,
    )
    keep_measurement(path, found)
    yield Kept(str(path))


def _score(
    job: CodecJob,
    teacher: TeacherForcing,
    passage: _Passage,
    exact: Sequence[Tensor],
    vocab_size: int,
) -> list[DocumentScores]:
    changed = teacher.hidden(job.documents, passage)
    return [
        score_document(document, vocab_size, teacher.logits_of(first), teacher.logits_of(second))
        for document, first, second in zip(job.documents, exact, changed, strict=True)
    ]


def _measured(
    level: KVLevel,
    codec: BlockCodec,
    passage: _Passage,
    scores: Sequence[DocumentScores],
    repeats: int,
    block_size: int,
) -> LevelMeasured:
    blocks = passage.blocks
    codes = [np.empty(codec.encoded_bytes, np.uint8) for _ in blocks]
    into = [np.empty_like(block) for block in blocks]
    return LevelMeasured(
        level=level,
        block_bytes=blocks[0].nbytes,
        encoded_bytes=codec.encoded_bytes,
        num_tokens=len(blocks) * block_size,
        key_errors=tuple(loss.keys for loss in passage.losses),
        value_errors=tuple(loss.values for loss in passage.losses),
        encode_s=_times(lambda: _each(codec.encode, blocks, codes), repeats),
        decode_s=_times(lambda: _each(codec.decode, codes, into), repeats),
        copy_s=_times(lambda: _each(np.copyto, into, blocks), repeats),
        scores=tuple(scores),
    )


def _each(
    work: Callable[[Bytes, Bytes], object], first: Sequence[Bytes], second: Sequence[Bytes]
) -> None:
    for one, other in zip(first, second, strict=True):
        work(one, other)


def _times(work: Callable[[], None], repeats: int) -> tuple[float, ...]:
    """After a first time that does not count."""
    times = []
    for _ in range(repeats + 1):
        started_s = time.perf_counter()
        work()
        times.append(time.perf_counter() - started_s)
    return tuple(times[1:])


def main() -> None:
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=CodecJob)
    try:
        for news in study(job):
            _tell(news)
    except NovaCronError as error:
        _tell(Refused(str(error)))


def _tell(news: CodecNews) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(news) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
