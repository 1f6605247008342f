"""Fencings that a server carries out itself: by the operator's programs."""
