"""What is in use is not removed: `decide` is pure, `run` carries it out."""
