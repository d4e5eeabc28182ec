"""Teacher-forced scores on held-out examples, cheap enough to run during training.

An example counts as right when the most likely token is right at every place of its answer, which
is when greedy decoding would give exactly that answer. It is a lower bound: the full evaluation
accepts other wordings of a right answer.
"""

from __future__ import annotations

import torch
from torch import Tensor

from demo_training.documents import RETRIEVAL_ROWS, SHORT_ROWS, RowShape
from demo_training.model import DemoModel
from demo_training.tokenizer import ChatEncoder
from novacron.demo.examples import Example, Message
from novacron.demo.tasks import TASKS, held_out_examples

_Scored = tuple[list[int], int]


def _encode(encoder: ChatEncoder, example: Example) -> _Scored:
    """Ids of the whole chat, and where the answer starts."""
    prompt = encoder.prompt(example.messages)
    answer = encoder.message(Message("assistant", example.answer))[1:]
    return prompt + answer, len(prompt)


def _shape_for(length: int) -> RowShape:
    shapes = (SHORT_ROWS, *RETRIEVAL_ROWS[1:])
    return next(shape for shape in shapes if shape.tokens >= length)


def _right_answers(model: DemoModel, batch: list[_Scored], shape: RowShape, pad: int) -> int:
    ids = torch.full((shape.rows, shape.tokens), pad)
    asked = torch.zeros((shape.rows, shape.tokens), dtype=torch.bool)
    for row, (tokens, start) in enumerate(batch):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        asked[row, start : len(tokens)] = True
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        hidden = model.hidden(ids)[:, :-1]
        wanted: Tensor = asked[:, 1:]
        best = model.logits(hidden[wanted]).argmax(-1)
    wrong = torch.zeros_like(wanted)
    wrong[wanted] = best != ids[:, 1:][wanted]
    return len(batch) - int(wrong.any(dim=1).sum())


def score_task(model: DemoModel, encoder: ChatEncoder, task: str, count: int, seed: int) -> float:
    """Share of `count` held-out examples of the task that the model answers exactly."""
    scored = [_encode(encoder, example) for example in held_out_examples(task, count, seed)]
    shape = _shape_for(max(len(ids) for ids, _ in scored))
    right = 0
    for start in range(0, count, shape.rows):
        right += _right_answers(model, scored[start : start + shape.rows], shape, encoder.pad)
    return right / count


def score_all(model: DemoModel, encoder: ChatEncoder, count: int, seed: int) -> dict[str, float]:
    """Scores of every task; long contexts get fewer examples."""
    return {
        task: score_task(model, encoder, task, min(count, _examples_for(task, count)), seed)
        for task in TASKS
    }


def _examples_for(task: str, count: int) -> int:
    if not task.startswith("retrieval_"):
        return count
    tokens = int(task.removeprefix("retrieval_"))
    return max(12, count * 256 // max(256, tokens))
