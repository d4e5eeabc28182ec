"""TeacherForcing: a model that is shown whole documents and tells what it expects at each place.

It has a small KV cache of its own, and is driven in passes, without a scheduler: nothing is chosen.
Keys and values go through the cache as they do when the model serves, in its precision.

Shapes: S judged tokens of a document, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from novacron.config.cache import CacheConfig
from novacron.config.engine import EngineConfig
from novacron.errors import ConfigError
from novacron.executor.blueprint import Blueprint, draw_blueprint
from novacron.executor.forced_passes import Piece, lay_out, lay_out_after
from novacron.executor.packed_weights import load_or_map_weights, packed_cache
from novacron.executor.placement import choose_num_threads
from novacron.kernels.kv_format import choose_kv_formats, describe_kv_formats
from novacron.models.decoder import Decoder
from novacron.models.model_version import model_version
from novacron.parallel.groups import SINGLE
from novacron.quality.document import Document
from novacron.quality.scoring import LogitsAt
from novacron.records.request import SamplingParams
from novacron.records.step import NewRequest, ScheduledTokens, SchedulerOutput
from novacron.runner.captured_step import EagerStep
from novacron.runner.input_batch import InputBatch, StepInput
from novacron.runner.kv_tensors import KVTensors

_MAX_TOKENS = 2048
_MAX_DOCUMENTS = 64
_NOTHING_IS_CHOSEN = SamplingParams(temperature=0.0, seed=0)


ChangeBlocks = Callable[[KVTensors, Sequence[int]], None]
Through = Callable[[int, StepInput], Tensor]


class TeacherForcing:
    """`decoder` must be loaded, and its context set to `longest` tokens or more.

    A pass is of `max_tokens` at most: the longest that this keeps its caller from other work.
    """

    def __init__(
        self,
        blueprint: Blueprint,
        decoder: Decoder,
        cache: CacheConfig,
        *,
        longest: int,
        max_tokens: int = _MAX_TOKENS,
    ) -> None:
        config = blueprint.config
        self.decoder = decoder
        self._max_tokens = max_tokens
        self._block_size = cache.block_size
        num_blocks = -(-(longest + max_tokens) // cache.block_size) + _MAX_DOCUMENTS
        self._kv_tensors = KVTensors(
            config,
            SINGLE,
            num_blocks=num_blocks,
            block_size=cache.block_size,
            formats=choose_kv_formats(cache, len(config.layers), blueprint.kv_precision),
            device=blueprint.device,
        )
        self._batch = InputBatch(
            max_num_seqs=_MAX_DOCUMENTS,
            max_num_tokens=max_tokens,
            max_model_len=longest,
            block_size=cache.block_size,
            device=blueprint.device,
        )
        self._decoder_step = EagerStep(decoder, self._kv_tensors.layers)

    @property
    def kv_tensors(self) -> KVTensors:
        return self._kv_tensors

    @property
    def kv_precision(self) -> str:
        return describe_kv_formats(self._kv_tensors.formats)

    @property
    def kv_bytes_per_token(self) -> float:
        tensors = self._kv_tensors
        return tensors.num_bytes / (tensors.num_blocks * tensors.block_size)

    def hidden(
        self,
        documents: Sequence[Document],
        change: ChangeBlocks | None = None,
        *,
        through: Through | None = None,
    ) -> Iterator[Tensor]:
        """For each document in order the hidden states before its judged tokens, [S, D].

        What they are does not depend on the documents beside them (ARCHITECTURE.md). `change` is
        called once for each document that has full blocks before its judged tokens, with these, and
        what follows sees what it leaves there: as if they had been found somewhere. `through` gets
        the number of each pass and its input, and gives its hidden states in place of the decoder.
        """
        for finished in self.passes(documents, change, through=through):
            yield from finished

    @torch.inference_mode()
    def passes(
        self,
        documents: Sequence[Document],
        change: ChangeBlocks | None = None,
        *,
        through: Through | None = None,
    ) -> Iterator[list[Tensor]]:
        """The same, one pass after the other: those of the documents that each finishes. To be
        gone through to the end."""
        free = list(range(self._kv_tensors.num_blocks))
        held: dict[int, list[int]] = {}
        found: dict[int, list[Tensor]] = {}
        left: tuple[str, ...] = ()
        lengths = [len(document.token_ids) - 1 for document in documents]  # the last sees no more
        if change is None:
            passes = lay_out(lengths, max_tokens=self._max_tokens, max_documents=_MAX_DOCUMENTS)
        else:
            prefixes = [self._num_prefix_blocks(one) * self._block_size for one in documents]
            passes = lay_out_after(lengths, prefixes, max_tokens=self._max_tokens)
        for step, pieces in enumerate(passes):
            new_blocks = [self._take_blocks(piece, free, held) for piece in pieces]
            hidden_TD = self._compute(step, documents, pieces, new_blocks, left, through)
            if change is not None:
                [piece] = pieces
                if piece.start + piece.num_tokens == prefixes[piece.document]:
                    count = self._num_prefix_blocks(documents[piece.document])
                    change(self._kv_tensors, held[piece.document][:count])
            ended = [piece.document for piece in pieces if _ends(piece, lengths)]
            for piece, part in zip(pieces, hidden_TD, strict=True):
                before = documents[piece.document].first_scored - 1 - piece.start
                found.setdefault(piece.document, []).append(part[max(0, before) :].clone())
            for document in ended:
                free += held.pop(document)
            left = tuple(map(str, ended))
            yield [torch.cat(found.pop(document)) for document in ended]
        if left:
            self._batch.update(SchedulerOutput(-1, (), (), (), left))

    @torch.inference_mode()
    def logits(self, hidden_SD: Tensor) -> Tensor:
        """Scores of all tokens, [S, V] in float32."""
        return self.decoder.logits(hidden_SD)

    def logits_of(self, hidden_SD: Tensor) -> LogitsAt:
        """For score_document."""
        return lambda part: self.logits(hidden_SD[part])

    def _num_prefix_blocks(self, document: Document) -> int:
        """Full blocks before the token that is judged first; the one before that is computed."""
        return (document.first_scored - 1) // self._block_size

    def _take_blocks(
        self, piece: Piece, free: list[int], held: dict[int, list[int]]
    ) -> tuple[int, ...]:
        blocks = held.setdefault(piece.document, [])
        needed = -(-(piece.start + piece.num_tokens) // self._block_size) - len(blocks)
        new = [free.pop() for _ in range(needed)]
        blocks += new
        return tuple(new)

    def _compute(
        self,
        step: int,
        documents: Sequence[Document],
        pieces: Sequence[Piece],
        new_blocks: Sequence[tuple[int, ...]],
        finished: tuple[str, ...],
        through: Through | None,
    ) -> list[Tensor]:
        """Hidden states of each piece."""
        output = SchedulerOutput(
            step,
            tuple(_introduce(piece, documents) for piece in pieces if piece.start == 0),
            tuple(
                ScheduledTokens(str(piece.document), piece.start, piece.num_tokens, blocks)
                for piece, blocks in zip(pieces, new_blocks, strict=True)
            ),
            (),
            finished,
        )
        self._batch.update(output)
        inputs = self._batch.prepare(output)
        hidden_TD = through(step, inputs) if through else self._decoder_step.hidden(inputs)
        rows = {part.scheduled.request_id: part.row for part in inputs.parts}
        return [
            hidden_TD[row.first_token : row.first_token + row.num_tokens]
            for row in (rows[str(piece.document)] for piece in pieces)
        ]


def load_teacher(
    config: EngineConfig, model_path: Path, *, longest: int
) -> tuple[Blueprint, TeacherForcing]:
    """The model that an engine of this configuration would serve, with its kernels, weights and KV
    precision. Raises ModelLoadError and ConfigError."""
    num_threads = choose_num_threads(config.model)
    blueprint = draw_blueprint(config.model, model_path, num_threads)
    if longest > blueprint.config.longest_context:
        raise ConfigError(
            f"A document has {longest} tokens, and the model's context is "
            f"{blueprint.config.longest_context}. Give shorter documents (--window)."
        )
    if blueprint.device.type == "cpu":
        torch.set_num_threads(1 if blueprint.kernels.has_threads else num_threads)
    decoder = blueprint.build(blueprint.device)
    load_or_map_weights(
        decoder,
        blueprint.checkpoint,
        blueprint.family,
        lambda fraction: None,
        cache=packed_cache(config.model),
        version=lambda: model_version(blueprint.checkpoint),
    )
    decoder.set_context(longest)
    return blueprint, TeacherForcing(blueprint, decoder, config.cache, longest=longest)


def _introduce(piece: Piece, documents: Sequence[Document]) -> NewRequest:
    token_ids = documents[piece.document].token_ids
    return NewRequest(str(piece.document), token_ids, len(token_ids), _NOTHING_IS_CHOSEN)


def _ends(piece: Piece, lengths: Sequence[int]) -> bool:
    return piece.start + piece.num_tokens == lengths[piece.document]
