"""A lab's directory in /tmp.

It is locked by its owner, so that the next lab recognises those of dead runs and removes them.
"""

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

_PREFIX = "volagent-lab-"
_UNLOCKED_PREFIX = "volagent-new-lab-"


class LabDirectory:
    """A new directory; those of dead runs are removed first. `close` removes it."""

    def __init__(self) -> None:
        _sweep()
        # Under its name only when it is locked: another run may be sweeping right now.
        made = Path(tempfile.mkdtemp(prefix=_UNLOCKED_PREFIX))
        self._lock = _lock(made)
        self.path = made.rename(made.with_name(made.name.replace(_UNLOCKED_PREFIX, _PREFIX)))

    def close(self) -> None:
        """Remove it with all that is in it."""
        shutil.rmtree(self.path)
        os.close(self._lock)


def _lock(directory: Path) -> int:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _sweep() -> None:
    for directory in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            lock = _lock(directory)
        except OSError:  # in use, or swept by somebody else just now
            continue
        shutil.rmtree(directory, ignore_errors=True)
        os.close(lock)
