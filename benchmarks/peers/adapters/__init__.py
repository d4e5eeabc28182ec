"""One file per engine, each run in its engine's own environment."""
