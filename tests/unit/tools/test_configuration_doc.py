from __future__ import annotations

import importlib.util
from pathlib import Path

TOOL = Path(__file__).resolve().parents[3] / "tools" / "configuration_doc.py"


def test_the_page_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("configuration_doc", TOOL)
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert tool.TARGET.read_text() == tool.document(), "run `make docs`"
