"""What admission must know of other objects, from the shared copies; may lag by a moment.

A claim that came in that moment without a class gets the default one from the binder.
"""

from volagent.client.contract import SERVICE_ACCOUNTS
from volagent.client.shared import SharedCopies
from volagent.objects.classes import choose_default_class
from volagent.objects.validate_cluster import GivenServiceAccount


class ObjectsAround:
    """Implements `admission.Surroundings`."""

    def __init__(self, copies: SharedCopies, *, mount_tokens: bool) -> None:
        """Before `copies.run`. `mount_tokens`: pods get their account's token."""
        self._classes = copies.classes
        self._accounts = copies.follow(SERVICE_ACCOUNTS, GivenServiceAccount)
        self._mount_tokens = mount_tokens

    def mounts_token(self, namespace: str, account: str) -> bool:
        """Whether pods of a service account get its token without asking."""
        if not self._mount_tokens:
            return False
        known = self._accounts.get(namespace, account)
        return known is None or known.automount_service_account_token is not False

    def default_class(self) -> str:
        """The class of claims that name none, or ""."""
        chosen = choose_default_class(self._classes.values())
        return chosen.metadata.name if chosen is not None else ""

    def class_can_grow(self, name: str) -> bool:
        """Whether a StorageClass lets its claims grow."""
        known = self._classes.get("", name)
        return known is not None and bool(known.allow_volume_expansion)
