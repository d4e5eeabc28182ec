"""NovaCron: serve large language models on the machines you have.

The public names are resolved when first used (PEP 562), so that importing a torch-free part of the
package does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from novacron.engine.llm import LLM
    from novacron.records.output import RequestOutput
    from novacron.records.request import SamplingParams

__version__ = "0.1.0"
__all__ = ["LLM", "RequestOutput", "SamplingParams", "__version__"]

_HOMES = {
    "LLM": "novacron.engine.llm",
    "RequestOutput": "novacron.records.output",
    "SamplingParams": "novacron.records.request",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'novacron' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
