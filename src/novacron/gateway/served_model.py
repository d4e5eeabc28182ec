"""The model behind this API: its names, and what can be said of it at any time."""

from __future__ import annotations

from novacron.engine.client import EngineClient, EngineState
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
    """One engine's model under one or more `names`; the first is the main one."""

    def __init__(self, client: EngineClient, names: tuple[str, ...], created: int) -> None:
        assert names
        self._client = client
        self.names = names
        self.created = created

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

    def resolve(self, name: str | None) -> str:
        """The name to answer under: `name`, or the main one if none was given."""
        if not name:
            return self.name
        if name not in self.names:
            raise ModelNotFound(name, self.names)
        return name
