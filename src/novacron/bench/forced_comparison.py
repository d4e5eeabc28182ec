"""Two variants of a model shown the same documents: `python -m` this file, see forced_job.

Both are held in this process at once, and a document's hidden states; of logits only a few rows at
a time. Imports torch, as the rest of the bench must not.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from novacron.bench.forced_job import (
    ForcedJob,
    Loaded,
    News,
    Refused,
    Scored,
    Variant,
    VariantFacts,
)
from novacron.errors import ConfigError, NovaCronError
from novacron.executor.blueprint import Blueprint
from novacron.executor.teacher_forcing import TeacherForcing, load_teacher
from novacron.quality.scoring import score_document


def compare(job: ForcedJob) -> Iterator[News]:
    """Raises ConfigError and ModelLoadError."""
    longest = max(len(document.token_ids) for document in job.documents)
    ours, reference = _load(job.reference, longest)
    theirs, variant = _load(job.variant, longest)
    vocab_size = ours.config.vocab_size
    if theirs.config.vocab_size != vocab_size:
        raise ConfigError(
            f"The reference has {vocab_size} tokens and the variant {theirs.config.vocab_size}: "
            "only variants of one model can be compared, with one vocabulary."
        )
    yield Loaded(_facts(ours, reference), _facts(theirs, variant))
    pairs = zip(reference.hidden(job.documents), variant.hidden(job.documents), strict=True)
    for document, (first_SD, second_SD) in zip(job.documents, pairs, strict=True):
        scores = score_document(
            document, vocab_size, reference.logits_of(first_SD), variant.logits_of(second_SD)
        )
        yield Scored(scores)


def _load(variant: Variant, longest: int) -> tuple[Blueprint, TeacherForcing]:
    return load_teacher(variant.config, Path(variant.model_path), longest=longest)


def _facts(blueprint: Blueprint, teacher: TeacherForcing) -> VariantFacts:
    return VariantFacts(
        dtype=blueprint.dtype_name,
        quantization=teacher.decoder.precision,
        kv_precision=teacher.kv_precision,
        kernels=blueprint.kernels.name,
        weight_bytes=teacher.decoder.weight_bytes,
        kv_bytes_per_token=teacher.kv_bytes_per_token,
    )


def main() -> None:
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=ForcedJob)
    try:
        for news in compare(job):
            _tell(news)
    except NovaCronError as error:
        _tell(Refused(str(error)))


def _tell(news: News) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(news) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
