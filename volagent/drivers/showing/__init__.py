"""Volumes of a storage node, shown to the nodes that have them attached, and to nobody else."""
