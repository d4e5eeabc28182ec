"""An engine process whose weights went wrong: `python -m novacron.testing.planted_engine`.

It serves the folder that it is given, in which a test has spoiled weights, and its watch over
quality compares with the sound model, the folder that the setting `model` names.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from novacron.config.model import ModelConfig
from novacron.engine import core_process
from novacron.executor import inline
from novacron.executor.blueprint import Blueprint
from novacron.executor.mapped_reference import MappedReference, map_reference
from novacron.models.model_files import read_model_files


def _of_the_sound_model(served: Blueprint, model: ModelConfig) -> MappedReference:
    path = Path(model.model)
    sound = replace(served, path=path, checkpoint=read_model_files(path).open_weights())
    return map_reference(sound, model)


if __name__ == "__main__":
    vars(inline)["map_reference"] = _of_the_sound_model
    core_process.main()
