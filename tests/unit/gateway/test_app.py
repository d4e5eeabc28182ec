from __future__ import annotations

import subprocess
import sys


def test_importing_the_gateway_brings_in_no_numerics() -> None:
    """The API process starts in a fraction of a second, and stays small."""
    code = (
        "import sys, novacron.gateway.app; "
        "print(*sorted({'torch', 'numpy', 'transformers'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
