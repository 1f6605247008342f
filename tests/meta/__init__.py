"""Tests of the project itself: its shape, its texts, its tools."""
