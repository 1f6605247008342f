"""Scenarios on several real kernels: real NFS, `kill -9`, power cuts, partitions."""
