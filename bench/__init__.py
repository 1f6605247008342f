"""Measures what `make bench` prints: one JSON line per figure."""
