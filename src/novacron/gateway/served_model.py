"""The model behind this API: its names, and what can be said of it at any time."""

from __future__ import annotations

from collections.abc import Mapping

from novacron.engine.client import EngineClient, EngineState, VariantStatus
from novacron.errors import ModelNotFound, NotReady
from novacron.records.output import ModelSpec

_STATUS = {
    EngineState.LOADING: "loading",
    EngineState.READY: "loaded",
    EngineState.DRAINING: "draining",
    EngineState.UNLOADED: "unloaded",
    EngineState.DEAD: "failed",
}


class ServedModel:
    """One model under one or more `names`; the first is the main one. Where several variants of it
    are loaded, "NAME@VARIANT" is one of them."""

    def __init__(self, client: EngineClient, names: tuple[str, ...], created: int) -> None:
        assert names
        self._client = client
        self.names = names
        self.created = created
        self._aliases: dict[str, str] = {}

    def add_aliases(self, aliases: Mapping[str, str]) -> None:
        """Further names, each for one of the names here, another of these, or NAME@VARIANT."""
        self._aliases |= aliases

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def status(self) -> str:
        """loading, loaded, draining, unloaded or failed."""
        return _STATUS[self._client.state]

    @property
    def spec(self) -> ModelSpec | None:
        """None until the model was loaded once."""
        try:
            return self._client.spec
        except NotReady:
            return None

    @property
    def listed(self) -> tuple[str, ...]:
        """The names, and of several variants each by a name of its own: "model@int8"."""
        variants = self._client.variants
        if len(variants) == 1:
            return *self.names, *self._aliases
        by_variant = (f"{self.name}@{variant.name}" for variant in variants)
        return *self.names, *by_variant, *self._aliases

    def resolve(self, name: str | None) -> tuple[str, str]:
        """The model's name to answer under, the main one if none was given, and the variant that
        the name asks for; empty: none. Raises ModelNotFound."""
        if not name or name in self.names:
            return name or self.name, ""
        if name in self._aliases:
            return name, self._variant_behind(name)
        base, _, variant = name.rpartition("@")
        variants = self._client.variants
        if base in self.names and len(variants) > 1 and variant in [one.name for one in variants]:
            return base, variant
        raise ModelNotFound(name, self.listed)

    def _variant_behind(self, alias: str) -> str:
        """Aliases may stand for each other; a circle ends at the main name."""
        name, seen = alias, set()
        while name in self._aliases and name not in seen:
            seen.add(name)
            name = self._aliases[name]
        return "" if name in self._aliases else self.resolve(name)[1]

    def variant(self, name: str) -> VariantStatus:
        """The variant of this name; empty: that of requests which ask for none."""
        variants = self._client.variants
        for one in variants:
            if one.name == name or (not name and one.is_default):
                return one
        return variants[0]

    def answers_as(self, base: str, variant: str) -> str:
        """The name of what has answered, which tells the variant where there are several."""
        return f"{base}@{variant}" if len(self._client.variants) > 1 else base

    def status_of(self, variant: VariantStatus) -> str:
        return _STATUS[variant.state]
