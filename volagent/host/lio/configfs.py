"""configfs, one call per function: directories are made, attributes written, links set.

The kernel fills a directory with its attributes when it is made, and a directory goes by rmdir
though they are in it. Whatever is there already is a success, and so is what is gone already.
Standard library only: this runs in a helper process. Errors are `HostError` with the path.
"""

import os
from dataclasses import dataclass

from volagent.host.errors import HostError


@dataclass(frozen=True, slots=True)
class Configfs:
    """A subsystem's directory, such as `/sys/kernel/config/target`."""

    root: str

    def make(self, path: str) -> bool:
        """Make a directory; whether it was missing."""
        try:
            os.mkdir(self._of(path))
        except FileExistsError:
            return False
        except OSError as error:
            raise _explain("mkdir", self._of(path), error) from error
        return True

    def remove(self, path: str) -> None:
        """Remove a directory."""
        try:
            os.rmdir(self._of(path))
        except FileNotFoundError:
            return
        except OSError as error:
            raise _explain("rmdir", self._of(path), error) from error

    def link(self, path: str, target: str) -> None:
        """Set a link to another directory of the subsystem."""
        try:
            os.symlink(self._of(target), self._of(path))
        except FileExistsError:
            return
        except OSError as error:
            raise _explain("symlink", self._of(path), error) from error

    def unlink(self, path: str) -> None:
        """Remove a link."""
        try:
            os.unlink(self._of(path))
        except FileNotFoundError:
            return
        except OSError as error:
            raise _explain("unlink", self._of(path), error) from error

    def write(self, path: str, text: str) -> None:
        """Write an attribute, in one call as the kernel wants it."""
        try:
            fd = os.open(self._of(path), os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, text.encode())
            finally:
                os.close(fd)
        except OSError as error:
            raise _explain("write", self._of(path), error) from error

    def read(self, path: str) -> str:
        """An attribute without its final newline; "" when it is not there."""
        try:
            with open(self._of(path), encoding="utf-8", errors="replace") as file:
                return file.read().rstrip("\n\0")
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise _explain("read", self._of(path), error) from error

    def has(self, path: str) -> bool:
        """Whether something is there."""
        return os.path.lexists(self._of(path))

    def directories(self, path: str) -> list[str]:
        """The names of the directories in one; none when it is not there."""
        try:
            with os.scandir(self._of(path)) as found:
                return sorted(each.name for each in found if each.is_dir(follow_symlinks=False))
        except FileNotFoundError:
            return []

    def links(self, path: str) -> list[str]:
        """The names of the links in a directory; none when it is not there."""
        try:
            with os.scandir(self._of(path)) as found:
                return sorted(each.name for each in found if each.is_symlink())
        except FileNotFoundError:
            return []

    def _of(self, path: str) -> str:
        return f"{self.root}/{path}" if path else self.root


def _explain(call: str, path: str, error: OSError) -> HostError:
    return HostError(call, path, error.errno or 0)
