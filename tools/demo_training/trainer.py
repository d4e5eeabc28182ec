"""The training loop with checkpoints.

A checkpoint holds weights, optimizer states, the schedule and the step. Data is drawn from the
seed and the step alone, so a resumed run continues exactly where the checkpoint was written.
"""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

import torch

from demo_training.documents import RETRIEVAL_ROWS, SHORT_ROWS, RowShape, make_batch
from demo_training.initialise import initialise
from demo_training.model import DemoModel, ModelShape
from demo_training.optimizer import make_optimizers, set_rate
from demo_training.schedule import Curriculum, RateSchedule
from demo_training.scoring import score_all
from demo_training.tokenizer import ChatEncoder

CHECKPOINT_NAME = "checkpoint.pt"


@dataclass(frozen=True)
class TrainOptions:
    """What a run is told; equal options and seed give an equal run on one machine."""

    seed: int = 0
    steps: int = 4600
    muon_lr: float = 0.02
    adam_lr: float = 3e-3
    weight_decay: float = 0.0
    short_every: int = 1
    log_every: int = 25
    checkpoint_every_s: float = 300.0
    score_every_s: float = 900.0
    score_count: int = 36


class Trainer:
    """One run in one folder."""

    def __init__(
        self, folder: Path, encoder: ChatEncoder, shape: ModelShape, options: TrainOptions
    ) -> None:
        self.folder = folder
        self.encoder = encoder
        self.options = options
        torch.manual_seed(options.seed)
        self.model = DemoModel(shape)
        initialise(self.model, encoder.word_pairs())
        self.model.compile_blocks()
        self.optimizers = make_optimizers(
            self.model, options.muon_lr, options.adam_lr, options.weight_decay
        )
        self.schedule = RateSchedule.of_length(options.steps)
        self.curriculum = Curriculum(len(RETRIEVAL_ROWS))
        self.step = 0
        self.tokens = 0
        self.seconds = 0.0
        self._stopping = False

    def stop(self, *_: object) -> None:
        """End after the running step and save; may be called by a signal."""
        self._stopping = True

    def save(self) -> None:
        """Write the checkpoint; the old one stays until the new one is complete."""
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "schedule": asdict(self.schedule),
            "curriculum": asdict(self.curriculum),
            "shape": asdict(self.model.shape),
            "step": self.step,
            "tokens": self.tokens,
            "seconds": self.seconds,
        }
        partial = self.folder / f"{CHECKPOINT_NAME}.partial"
        torch.save(state, partial)
        os.replace(partial, self.folder / CHECKPOINT_NAME)

    def resume(self) -> bool:
        """Load the checkpoint of the folder, if there is one."""
        path = self.folder / CHECKPOINT_NAME
        if not path.exists():
            return False
        state: dict[str, Any] = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.schedule = RateSchedule(**state["schedule"])
        self.curriculum = Curriculum(**state["curriculum"])
        self.step, self.tokens = state["step"], state["tokens"]
        self.seconds = state["seconds"]
        return True

    def start_from(self, weights: dict[str, torch.Tensor]) -> None:
        """Begin with these weights, which know all row lengths already; optimizers start fresh."""
        self.model.load_state_dict(weights)
        self.curriculum = Curriculum(len(RETRIEVAL_ROWS), admitted=len(RETRIEVAL_ROWS))

    def decay_now(self, steps: int, factor: float | None) -> None:
        """Let the rates fall to zero in `steps` steps, from `factor` or from where they are."""
        start = self.schedule.factor(self.step) if factor is None else factor
        self.schedule = RateSchedule.ending(self.step, steps, start)

    def train(self) -> None:
        """Run to the end of the schedule, logging, scoring and saving on the way."""
        saved = scored = logged = time.monotonic()
        tokens_logged = self.tokens
        short_losses: list[float] = []
        long_losses: list[float] = []
        while self.step < self.schedule.total_steps:
            started = time.monotonic()
            short_loss, long_loss = self._train_step()
            now = time.monotonic()
            self.seconds += now - started
            short_losses += [] if short_loss is None else [short_loss]
            long_losses.append(long_loss)
            if self.step % self.options.log_every == 0:
                speed = (self.tokens - tokens_logged) / (now - logged)
                short, long = fmean(short_losses or [0.0]), fmean(long_losses)
                self._log(f"short {short:.3f} long {long:.3f} {speed:.0f} tok/s")
                logged, tokens_logged = now, self.tokens
                short_losses.clear()
                long_losses.clear()
            if now - saved > self.options.checkpoint_every_s:
                self.save()
                saved = time.monotonic()
            if now - scored > self.options.score_every_s:
                self._score()
                scored = logged = time.monotonic()
            if self._stopping:
                self.save()
                return
        self.save()
        self._score()

    def _train_step(self) -> tuple[float | None, float]:
        """One update from a retrieval and mostly a short batch. Returns the short and long loss."""
        rng = Random(f"{self.options.seed}/{self.step}")
        set_rate(self.optimizers, self.schedule.factor(self.step))
        short_loss = None
        if self.step % self.options.short_every == 0:
            short_loss = self._backward(SHORT_ROWS, rng, retrieval=False)
        chosen = self.curriculum.choose(rng)
        long_loss = self._backward(RETRIEVAL_ROWS[chosen], rng, retrieval=True)
        self.curriculum.observe(chosen, long_loss)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=False)
        self.step += 1
        return short_loss, long_loss

    def _backward(self, shape: RowShape, rng: Random, retrieval: bool) -> float:
        ids, weights = make_batch(self.encoder, rng, shape, retrieval)
        with torch.autocast("cpu", torch.bfloat16):
            loss = self.model.loss(ids, weights)
        loss.backward()  # type: ignore[no-untyped-call]
        self.tokens += shape.rows * shape.tokens
        return loss.item()

    def _log(self, text: str) -> None:
        factor = self.schedule.factor(self.step)
        print(
            f"step {self.step}/{self.schedule.total_steps} tokens {self.tokens / 1e6:.2f}M "
            f"minutes {self.seconds / 60:.1f} rate {factor:.2f} "
            f"lengths {self.curriculum.admitted} {text}",
            flush=True,
        )

    def _score(self) -> None:
        scores = score_all(self.model, self.encoder, self.options.score_count, self.options.seed)
        self._log("scores " + " ".join(f"{name}={score:.2f}" for name, score in scores.items()))
