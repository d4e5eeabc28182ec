"""The list of models, which has one entry per name of the one model, and one per variant of it
where several are loaded."""

from __future__ import annotations

from novacron.gateway.openai.responses import ModelCard, ModelList, ModelStatus
from novacron.gateway.served_model import ServedModel


def model_list(model: ServedModel) -> ModelList:
    return ModelList(data=tuple(model_card(model, name) for name in model.listed))


def model_card(model: ServedModel, name: str) -> ModelCard:
    """Raises ModelNotFound."""
    _, named = model.resolve(name)
    variant = model.variant(named)
    return ModelCard(
        id=name,
        created=model.created,
        root=model.name,
        max_model_len=None if variant.spec is None else variant.spec.max_model_len,
        status=ModelStatus(model.status_of(variant) if named else model.status),
    )
