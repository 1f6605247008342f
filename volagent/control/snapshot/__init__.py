"""Snapshots of claims: `decide` is pure, `run` carries it out."""
