"""Claims and volumes find each other: `decide` is pure, `run` carries it out."""
