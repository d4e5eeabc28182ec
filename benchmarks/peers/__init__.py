"""Other engines beside ours on the same weights, in turn: `make bench-peers`. See METHOD.md."""
