"""The node agent: desired volumes, actual mounts, and the loop that makes them equal."""
