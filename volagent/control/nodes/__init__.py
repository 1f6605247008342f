"""Which nodes are alive, by their leases."""
