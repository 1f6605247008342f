"""Claims of generic ephemeral volumes: `decide` is pure, `run` carries it out."""
