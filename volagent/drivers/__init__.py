"""Drivers: one module and one class per kind of volume, behind `contract.py`."""
