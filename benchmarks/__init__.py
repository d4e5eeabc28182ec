"""Programs that measure; see METHODOLOGY.md. Nothing of the package imports them."""
