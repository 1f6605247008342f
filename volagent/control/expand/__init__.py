"""Claims grow: `decide` is pure, `run` carries it out; the node's half is `node/grow.py`."""
