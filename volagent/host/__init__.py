"""The kernel: mounts, block devices, file systems, safe paths, helper processes.

The only home of `ctypes` and `subprocess`. `contract.py` says what the rest of volagent may ask;
`real.py` assembles the implementation on this machine's kernel.
"""
