"""Local storage is found and offered: `decide` is pure, `run` carries it out. Runs on each VM."""
