"""The list of models, which has one entry per name of the one model."""

from __future__ import annotations

from novacron.gateway.openai.responses import ModelCard, ModelList, ModelStatus
from novacron.gateway.served_model import ServedModel


def model_list(model: ServedModel) -> ModelList:
    return ModelList(data=tuple(model_card(model, name) for name in model.names))


def model_card(model: ServedModel, name: str) -> ModelCard:
    """Raises ModelNotFound."""
    spec = model.spec
    return ModelCard(
        id=model.resolve(name),
        created=model.created,
        root=model.name,
        max_model_len=None if spec is None else spec.max_model_len,
        status=ModelStatus(model.status),
    )
