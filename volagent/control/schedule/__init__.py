"""Pods find their node: `decide` (with filters, scores, volumes, topology) is pure, `run` acts."""
