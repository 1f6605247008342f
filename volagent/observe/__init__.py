"""Logs, metrics, events and the timeline: how the daemon says what it does."""
