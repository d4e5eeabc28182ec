"""Models by their name on the Hugging Face hub: from the local cache, or fetched into it."""

from __future__ import annotations

import re
from pathlib import Path

import huggingface_hub

from novacron.errors import ModelLoadError

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_FILES = ("*.json", "*.safetensors", "*.jinja")


def download(name: str) -> Path:
    """The folder of a model on the hub. Raises ModelLoadError if there is none, or no network."""
    if not _HUB_NAME.fullmatch(name):
        raise ModelLoadError(
            f"'{name}' is no folder, and no name on the Hugging Face hub (owner/model). "
            "Give the path of a model folder, or leave the model out to serve the bundled one."
        )
    try:  # all errors of the hub's client are OSErrors; importing their classes costs 0.1 s
        # The revision is the user's choice of name; nothing of a model's folder is ever run.
        files = list(_FILES)
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=files))  # nosec B615
    except FileNotFoundError as error:
        raise ModelLoadError(
            f"'{name}' is no folder, not in the local Hugging Face cache, and the hub cannot be "
            "reached. Connect to the network once, or give the path of a model folder."
        ) from error
    except (OSError, ValueError) as error:  # ValueError: a name against the hub's rules
        raise ModelLoadError(f"'{name}' cannot be fetched from the hub: {error}") from error
