"""The full evaluation: greedy answers of an exported folder to held-out questions.

Runs the folder with transformers in float32, as any user could, and judges each answer by the
rule of its task. The model card shows its table.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from novacron.demo.examples import Check, Example, is_correct
from novacron.demo.tasks import TASKS, held_out_examples

_BATCH_TOKENS = 16_384
_MAX_NEW_TOKENS = 96


@dataclass(frozen=True)
class TaskScore:
    """Right answers of one task."""

    task: str
    asked: int
    right: int
    prompt_tokens: float
    check: Check

    @property
    def accuracy(self) -> float:
        return self.right / self.asked


class FolderModel:
    """Answers questions greedily in batches with left padding."""

    def __init__(self, folder: Path) -> None:
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, padding_side="left")

    def prompt(self, example: Example) -> list[int]:
        messages = [message._asdict() for message in example.messages]
        chosen = self._tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_dict=True
        )
        return list(chosen["input_ids"])

    def answer(self, prompts: list[list[int]]) -> list[str]:
        batch = self._tokenizer.pad({"input_ids": prompts}, return_tensors="pt")
        with torch.no_grad():
            output = self._model.generate(**batch, max_new_tokens=_MAX_NEW_TOKENS, do_sample=False)
        texts: list[str] = self._tokenizer.batch_decode(
            output[:, batch["input_ids"].shape[1] :], skip_special_tokens=True
        )
        return texts


def evaluate_task(model: FolderModel, task: str, count: int, seed: int) -> TaskScore:
    examples = held_out_examples(task, count, seed)
    prompts = [model.prompt(example) for example in examples]
    order = sorted(range(count), key=lambda i: len(prompts[i]))
    size = max(1, min(64, _BATCH_TOKENS // max(map(len, prompts))))
    right = 0
    for start in range(0, count, size):
        chosen = order[start : start + size]
        texts = model.answer([prompts[i] for i in chosen])
        right += sum(is_correct(examples[i], text) for i, text in zip(chosen, texts, strict=True))
    tokens = sum(map(len, prompts)) / count
    return TaskScore(task, count, right, tokens, examples[0].check)


def evaluate(
    folder: Path, tasks: Iterable[str], count: int, retrieval_count: int, seed: int
) -> list[TaskScore]:
    """Scores of the named tasks (all if none is named), printed as they come."""
    model = FolderModel(folder)
    scores = []
    for task in list(tasks) or list(TASKS):
        asked = retrieval_count if task.startswith("retrieval_") else count
        score = evaluate_task(model, task, asked, seed)
        scores.append(score)
        print(
            f"| {score.task} | {score.right / score.asked:.1%} | {score.right} of {score.asked} "
            f"| {score.prompt_tokens:.0f} | {score.check.value} |",
            flush=True,
        )
    return scores
