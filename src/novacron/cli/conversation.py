"""The state of a chat in the terminal: messages and settings. Knows nothing of servers."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from novacron.errors import InvalidRequest

Message = dict[str, str]


@dataclass
class Conversation:
    """What has been said, under which system prompt and sampling settings."""

    system: str = ""
    turns: list[Message] = field(default_factory=list)
    settings: dict[str, object] = field(default_factory=dict)

    @property
    def messages(self) -> list[Message]:
        """As the API wants them."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        return system + self.turns

    def ask(self, text: str) -> None:
        self.turns.append({"role": "user", "content": text})

    def answer(self, text: str) -> None:
        self.turns.append({"role": "assistant", "content": text})

    def take_back_question(self) -> None:
        """Forget a question that got no answer."""
        if self.turns and self.turns[-1]["role"] == "user":
            self.turns.pop()

    def take_back_answer(self) -> bool:
        """Forget the last answer, so that its question is open again. False if there is none."""
        if not self.turns or self.turns[-1]["role"] != "assistant":
            return False
        self.turns.pop()
        return True

    def save(self, path: Path) -> None:
        content = {"messages": self.messages, "settings": self.settings}
        try:
            path.write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")
        except OSError as error:
            raise InvalidRequest(f"{path} cannot be written: {error.strerror}.") from error

    def load(self, path: Path) -> None:
        """Replace everything by what `save` wrote. Raises InvalidRequest and changes nothing."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            messages = [
                {"role": str(message["role"]), "content": str(message["content"])}
                for message in content["messages"]
            ]
            settings = dict(content.get("settings", {}))
        except OSError as error:
            raise InvalidRequest(f"{path} cannot be read: {error.strerror}.") from error
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidRequest(f"{path} is not a saved chat: {error}.") from error
        is_system = bool(messages) and messages[0]["role"] == "system"
        self.system = messages.pop(0)["content"] if is_system else ""
        self.turns = messages
        self.settings = settings
