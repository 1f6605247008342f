"""What the machines are made with: `VOLAGENT_LAB` is `uml` (the default) or `vagrant`."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from tests.cluster.lab import lab, pool
from tests.cluster.lab.machine import Lab

NAMES = ("uml", "vagrant")


class Backend(Protocol):
    """Makes labs."""

    def make_lab(self) -> Lab:
        """An empty lab."""


class _Uml:
    def make_lab(self) -> Lab:
        return lab.UmlLab()


def choose_backend() -> str:
    """Its name. Raises `ValueError`."""
    name = os.environ.get("VOLAGENT_LAB", "uml")
    if name not in NAMES:
        raise ValueError(f"VOLAGENT_LAB is {name}: it may be {' or '.join(NAMES)}")
    return name


def find_obstacle(name: str) -> str | None:
    """Why a backend cannot be used here and what would help, or None."""
    return pool.find_obstacle() if name == "vagrant" else lab.find_obstacle()


@contextmanager
def open_backend(name: str) -> Iterator[Backend]:
    """The backend, for one test run."""
    if name == "uml":
        yield _Uml()
        return
    with pool.VagrantPool() as made:
        yield made
