"""What was measured of a model part by part, kept in a file, and whether it is about this one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from novacron.config.load import Settings
from novacron.demo import bundled_model_path, bundled_sensitivity_path
from novacron.engine.model_path import resolve_model_path
from novacron.errors import ConfigError

if TYPE_CHECKING:
    from novacron.quality.sensitivity import Sensitivity

_IDENTITY = ("model", "dtype", "group size")


def read_sensitivity(settings: Settings, path: Path) -> Sensitivity:
    """Raises ConfigError if it is of another model or precision."""
    found = _read(path)
    for what, mine, measured in zip(
        _IDENTITY, identity_of(settings), _measured(found), strict=True
    ):
        if mine != measured:
            raise ConfigError(
                f"{path} was measured with the {what} {measured}, and this is {mine}. Name another "
                "file to measure anew."
            )
    return found


def known_sensitivity(settings: Settings) -> Sensitivity | None:
    """That of the bundled model comes with it, for the precision that most machines hold it in."""
    if resolve_model_path(settings.engine.model.model) != bundled_model_path():
        return None
    found = _read(bundled_sensitivity_path())
    return found if _measured(found) == identity_of(settings) else None


def identity_of(settings: Settings) -> tuple[str, str, str]:
    """Of what is measured: the model's version, dtype and group size."""
    from novacron.executor.blueprint import draw_blueprint
    from novacron.models.model_version import model_version

    model = settings.engine.model
    blueprint = draw_blueprint(model, resolve_model_path(model.model), 1)
    return (
        model_version(blueprint.checkpoint),
        blueprint.dtype_name,
        _group_size_text(model.quantization_group_size),
    )


def _read(path: Path) -> Sensitivity:
    from novacron.quality.sensitivity import Sensitivity

    try:
        return msgspec.json.decode(path.read_bytes(), type=Sensitivity)
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigError(f"{path} holds no sensitivities: {error}.") from error


def _measured(found: Sensitivity) -> tuple[str, str, str]:
    return found.model_version, found.dtype, _group_size_text(found.group_size)


def _group_size_text(size: int | None) -> str:
    return "that is usual" if size is None else str(size)
