"""What admission must know of StorageClasses, from the shared copies; may lag by a moment.

A claim that came in that moment without a class gets the default one from the binder.
"""

from volagent.client.shared import SharedCopies
from volagent.objects.classes import choose_default_class


class ClassesAround:
    """Implements `admission.Surroundings`."""

    def __init__(self, copies: SharedCopies) -> None:
        self._classes = copies.classes

    def default_class(self) -> str:
        """The class of claims that name none, or ""."""
        chosen = choose_default_class(self._classes.values())
        return chosen.metadata.name if chosen is not None else ""

    def class_can_grow(self, name: str) -> bool:
        """Whether a StorageClass lets its claims grow."""
        known = self._classes.get("", name)
        return known is not None and bool(known.allow_volume_expansion)
