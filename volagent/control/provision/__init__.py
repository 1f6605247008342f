"""Volumes made for claims, and dealt with when released: `decide` is pure, `run` carries it out."""
