"""Make a model that says what another says at a higher price: a target for that one as a draft.

    python tools/deepen_model.py OUT --layers 60               the bundled model, ten times deeper
    python tools/deepen_model.py OUT --layers 60 --noise 0.1   the same, no longer always agreeing

For benchmarks of speculation where no larger model of the same vocabulary is at hand.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from novacron.demo import bundled_model_path
from novacron.testing.deeper_models import make_deeper_model


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Make a deeper model that says what another one says."
    )
    parser.add_argument("folder", type=Path, help="where to write it")
    parser.add_argument("--source", type=Path, default=bundled_model_path())
    parser.add_argument("--layers", type=int, required=True)
    parser.add_argument("--noise", type=float, default=0.0, help="on the weights, of their spread")
    given = parser.parse_args()
    made = make_deeper_model(given.source, given.folder, num_layers=given.layers, noise=given.noise)
    print(f"wrote {made}")


if __name__ == "__main__":
    main()
