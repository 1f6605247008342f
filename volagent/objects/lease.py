"""The typed view of a Lease: who shows by it that they are alive."""

from volagent.objects.meta import TypedObject, View


class LeaseSpec(View, frozen=True):
    """`spec` of a Lease."""

    holder_identity: str = ""
    lease_duration_seconds: int | None = None
    renew_time: str | None = None
    """The holder's wall clock: only that it changes means something."""


class Lease(TypedObject, frozen=True):
    """A Lease."""

    spec: LeaseSpec = LeaseSpec()
