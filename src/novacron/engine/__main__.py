"""Starts the engine process: `python -m novacron.engine`, see core_process.

Nothing is garbage while modules are imported, and looking for it cost 0.3 s of 1.75 s (median of
six interleaved runs), so the collector sleeps until the model is loaded.
"""

import gc

gc.disable()

from novacron.engine.core_process import main  # noqa: E402 (after the collector is off)

main()
