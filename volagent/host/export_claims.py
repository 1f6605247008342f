"""Whose a directory of an export is: claims on paths, and the refusals when it is another's.

Standard library only; errors are `OSError` and `Refusal`.
"""

from dataclasses import dataclass
from typing import Any, Final

from volagent.host import export_tree
from volagent.host.export_records import STORE, VOLUME_NAME, Record, Records, Refusal

PRESENT: Final = "present"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Export:
    """An opened export."""

    root: int
    records: Records
    now_s: float
    """Seconds since 1970."""


def check_owner(record: Record, owner: str) -> None:
    """Raises `Refusal` when the marker names another owner."""
    if record.owner != owner:
        raise Refusal(
            f"{record.directory!r} of the export belongs to {record.owner or 'nobody'}, not to "
            f"{owner or 'nobody'}",
            f"see {STORE}/{record.name}.json on the server; nothing was touched",
        )


def claim(export: Export, record: Record) -> None:
    """Take the path (3); what lies inside another volume, or is another's, is refused."""
    records, parent = export.records, record.directory
    claimant = records.claim_path(record.directory, record.name)
    if claimant != record.name:
        raise refuse_claimed(export, record.directory, claimant)
    while parent := export_tree.split(parent)[0]:
        claimant = records.find_claimant(parent)
        if claimant:
            records.release_path(record.directory, record.name)
            raise Refusal(
                f"{record.directory!r} would lie inside the volume {claimant} ({parent!r})",
                "use a pathPattern that gives each claim a directory of its own",
            )


def stands(export: Export, record: Record) -> bool:
    """Whether the volume's own directory is at its path."""
    inode = export_tree.find_inode(export.root, record.directory)
    return bool(inode) and inode == (record.inode or inode)


def refuse_claimed(export: Export, directory: str, claimant: str) -> Refusal:
    """The path is another volume's."""
    other = export.records.read(claimant) if VOLUME_NAME.fullmatch(claimant) else None
    if other is None:
        return Refusal(
            f"{directory!r} is marked as the directory of {claimant!r}, which has no owner marker",
            f"look into {STORE}/paths on the server and remove the link that says {claimant!r}",
        )
    kept = " (kept after its deletion)" if other.state == "retained" else ""
    return Refusal(
        f"{directory!r} is the directory of {claimant}{kept}, claim {other.claim}",
        "use a pathPattern that gives each claim a directory of its own",
    )


def refuse_existing(export: Export, directory: str) -> Refusal:
    """Something that is not ours is at the path."""
    claimant = export.records.find_claimant(directory)
    if claimant:
        return refuse_claimed(export, directory, claimant)
    return Refusal(
        f"{directory!r} exists on the export already, and no owner marker says whose it is",
        "rename it on the server, or use it through a PersistentVolume of its own",
    )


def refuse_replaced(record: Record) -> Refusal:
    """Another directory than ours is at our path."""
    return Refusal(
        f"{record.directory!r} is not the directory that was made for {record.name}",
        f'if it is its data (restored, or moved to a new disk), set "inode" to 0 in '
        f"{STORE}/{record.name}.json on the server",
    )


def refuse_unmarked(name: str) -> Refusal:
    """Nothing says that the volume is ours."""
    return Refusal(
        f"the export has no owner marker of {name}",
        "see whether this is the right export; if the data is to stay, or is gone for good, set "
        "the volume's persistentVolumeReclaimPolicy to Retain",
    )
