"""Disks and pods of lost nodes: which are taken, by which proof, and when everything is stopped."""
