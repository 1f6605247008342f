"""Keeping a lost node from writing to a disk, by its storage or by the operator's programs."""
