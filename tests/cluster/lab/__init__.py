"""Machines for the scenarios: several real kernels, their network and disks, and what runs on
them.

Scenarios are written against `machine.Machine` and the roles (`nfs_server`, `node`); they do not
know that the machines are User-Mode-Linux processes. `lab.Lab` makes and removes everything.
"""
