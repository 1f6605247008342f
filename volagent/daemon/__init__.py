"""The composition roots: every concrete object of a process is built here, role by role."""
