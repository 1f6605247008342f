"""What a failure of the initiator means for a volume, and what a person can do about it. Pure."""

from typing import Final

from volagent.drivers.errors import DriverError, Rejected, Transient, Uncertain
from volagent.host.errors import HostError, Unsupported
from volagent.host.iscsi.contract import (
    Fenced,
    LunChanged,
    LunMissing,
    LunNameless,
    LunWish,
    NoSession,
    Refusal,
    Reserved,
    Withdrawn,
)

REASON: Final = "FailedAttachVolume"
_REMEDIES: Final = {
    Refusal.CREDENTIALS: "correct the secret that secretRef names, or the target's list of"
    " initiators; nobody else is kept waiting",
    Refusal.UNKNOWN_TARGET: "correct iscsi.iqn, or let the target show itself to this node's"
    " initiator (/etc/iscsi/initiatorname.iscsi)",
    Refusal.NO_DAEMON: "`systemctl enable --now iscsid`",
    Refusal.SILENT: "see whether the portal is up and reached from this node, or give another in"
    " iscsi.portals",
    Refusal.UNREACHABLE: "see whether the portal is up and reached from this node, or give another"
    " in iscsi.portals",
    Refusal.FAILED: "see iscsid's log: `journalctl -u iscsid`",
}
_TOLD_FIRST: Final = (
    Refusal.NO_DAEMON,
    Refusal.CREDENTIALS,
    Refusal.UNKNOWN_TARGET,
    Refusal.FAILED,
    Refusal.UNREACHABLE,
    Refusal.SILENT,
)


def explain(error: HostError, wish: LunWish, *, left: bool) -> DriverError:
    """A failed attach; `left` says that the kernel shows something of the LUN all the same."""
    if isinstance(error, LunChanged):
        return explain_changed(error)
    if isinstance(error, Fenced):
        return explain_fenced(error)
    lun = f"LUN {wish.lun} of {wish.iqn}"
    kind: type[DriverError] = Uncertain if left else Transient
    if isinstance(error, NoSession):
        refusals = {failure.refusal for failure in error.failures}
        first = next((each for each in _TOLD_FIRST if each in refusals), Refusal.SILENT)
        return kind(
            f"cannot log in for {lun}: {error.detail}", remedy=_REMEDIES[first], reason=REASON
        )
    if isinstance(error, LunMissing):
        return kind(
            f"{lun} is not there: {error.detail}",
            remedy="see what the target shows to this node's initiator"
            " (/etc/iscsi/initiatorname.iscsi), and whether iscsi.lun is right",
            reason=REASON,
        )
    if isinstance(error, LunNameless):
        kind = Uncertain if left else Rejected
        return kind(
            f"{lun} has no world-wide name, so it could be taken for another disk",
            remedy="have the storage give it one (VPD page 0x83)",
            reason=REASON,
        )
    if isinstance(error, Reserved):
        return kind(
            f"{lun} is reserved by somebody who is not volagent: {error.detail}",
            remedy="see who uses it: `sg_persist --in --read-full-status DEVICE`; if nobody does,"
            " `sg_persist --out --clear`",
            reason=REASON,
        )
    if isinstance(error, Withdrawn):
        return kind(
            f"{lun} was given back unwritten: {error.detail}",
            remedy="it is attached again when the cluster says so",
            reason=REASON,
        )
    if isinstance(error, Unsupported):
        return kind(str(error), remedy=error.detail, reason=REASON)
    return Uncertain(
        f"{lun} may be attached or not: {error}",
        remedy="see iscsid's log and the kernel's; it is looked at again",
        reason=REASON,
    )


def explain_fenced(error: Fenced) -> Uncertain:
    """The storage keeps this node out of a disk that it had."""
    return Uncertain(
        f"this node was fenced from the disk: {error}; nothing more is written to it",
        remedy="it is attached anew when its mounts are gone and the cluster gives it to this node"
        " again: see `kubectl get fencings` for why it was taken",
        reason=REASON,
    )


def explain_changed(error: LunChanged) -> Uncertain:
    """Another disk stands where one was recorded or is in use."""
    return Uncertain(
        f"another disk is shown under the same number: {error}; nothing was mounted or formatted",
        remedy="see who exchanged the LUN on the storage: show the old one again, or delete the"
        " pods that use it and declare them anew",
        reason=REASON,
    )
