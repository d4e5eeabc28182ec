"""Train, export and evaluate the bundled demo model.

    python tools/train_demo.py train RUN_FOLDER            start, or resume, a run
    python tools/train_demo.py train RUN_FOLDER --decay-now 500
    python tools/train_demo.py train RUN_FOLDER --start-from MODEL_FOLDER [--separate WORD ...]
    python tools/train_demo.py export RUN_FOLDER MODEL_FOLDER
    python tools/train_demo.py evaluate MODEL_FOLDER

Needs the `novacron` package on the path, torch, tokenizers and safetensors; `evaluate` also needs
transformers.
"""

from __future__ import annotations

import argparse
import shutil
import signal
from pathlib import Path

import torch

from demo_training.documents import tokenizer_texts
from demo_training.evaluate import evaluate
from demo_training.export import export_model, read_exported_weights
from demo_training.model import ModelShape
from demo_training.schedule import RateSchedule
from demo_training.separate import separate
from demo_training.tokenizer import ChatEncoder, train_tokenizer
from demo_training.trainer import Trainer, TrainOptions
from demo_training.verify import largest_logit_difference

TOKENIZER_NAME = "tokenizer.json"
TOKENIZER_EXAMPLES = 150_000


def prepare_tokenizer(folder: Path, seed: int, vocab_size: int) -> ChatEncoder:
    """The tokenizer of the run, trained on first use."""
    path = folder / TOKENIZER_NAME
    if not path.exists():
        texts = tokenizer_texts(seed, TOKENIZER_EXAMPLES)
        train_tokenizer(texts, vocab_size).save(str(path))
    return ChatEncoder.load(path)


def run_train(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    folder: Path = arguments.run
    folder.mkdir(parents=True, exist_ok=True)
    options = TrainOptions(
        seed=arguments.seed,
        steps=arguments.steps or TrainOptions.steps,
        short_every=arguments.short_every,
    )
    shape = ModelShape()
    if arguments.start_from is not None:
        shutil.copyfile(arguments.start_from / TOKENIZER_NAME, folder / TOKENIZER_NAME)
    encoder = prepare_tokenizer(folder, options.seed, shape.vocab_size)
    trainer = Trainer(folder, encoder, shape, options)
    resumed = trainer.resume()
    if arguments.start_from is not None and not resumed:
        weights = read_exported_weights(arguments.start_from)
        if arguments.separate:
            separate(weights["embed_tokens.weight"], encoder, arguments.separate)
        trainer.start_from(weights)
    if arguments.steps is not None:
        trainer.schedule = RateSchedule.of_length(arguments.steps)
    if arguments.decay_now is not None:
        trainer.decay_now(arguments.decay_now, arguments.decay_from)
    print(f"{'resumed' if resumed else 'started'} at step {trainer.step}", flush=True)
    signal.signal(signal.SIGTERM, trainer.stop)
    trainer.train()


def run_export(arguments: argparse.Namespace) -> None:
    export_model(arguments.run, arguments.run / TOKENIZER_NAME, arguments.model)
    difference = largest_logit_difference(arguments.run, arguments.model)
    print(f"{arguments.model}: largest logit difference to transformers {difference:.2e}")


def run_evaluate(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    evaluate(
        arguments.model,
        arguments.tasks,
        arguments.count,
        arguments.retrieval_count,
        arguments.seed,
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the bundled demo model.")
    commands = parser.add_subparsers(required=True)
    train = commands.add_parser("train", help="start or resume a run")
    train.add_argument("run", type=Path, help="folder of tokenizer and checkpoint")
    train.add_argument("--steps", type=int, help="length of the run; a resumed run keeps its own")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--threads", type=int, default=1)
    train.add_argument("--decay-now", type=int, metavar="N", help="finish in N steps from here")
    train.add_argument("--decay-from", type=float, metavar="F", help="rate to fall from, 1 = full")
    train.add_argument("--start-from", type=Path, help="exported model whose weights to start with")
    train.add_argument(
        "--separate", nargs="+", metavar="WORD", help="keys that the exported model confuses"
    )
    train.add_argument("--short-every", type=int, default=1, help="steps per batch of short chats")
    train.set_defaults(action=run_train)
    export = commands.add_parser("export", help="write the newest checkpoint as a model folder")
    export.add_argument("run", type=Path)
    export.add_argument("model", type=Path)
    export.set_defaults(action=run_export)
    evaluation = commands.add_parser("evaluate", help="greedy accuracy on held-out questions")
    evaluation.add_argument("model", type=Path)
    evaluation.add_argument("tasks", nargs="*", help="names of tasks; all if none is given")
    evaluation.add_argument("--count", type=int, default=300)
    evaluation.add_argument("--retrieval-count", type=int, default=500)
    evaluation.add_argument("--seed", type=int, default=1)
    evaluation.add_argument("--threads", type=int, default=1)
    evaluation.set_defaults(action=run_evaluate)
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    arguments.action(arguments)


if __name__ == "__main__":
    main()
