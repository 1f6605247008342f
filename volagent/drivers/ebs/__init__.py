"""Disks of Amazon's block store: the EC2 API as far as volumes need it, and the node's driver."""
