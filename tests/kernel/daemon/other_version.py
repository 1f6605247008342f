"""volagent in another version: a copy of the package that says more, and knows more, than this one.

What the next version may do to the protocol is done here to a copy of the source, by replacing
text: fields that this version does not know in every object and record that crosses between
processes, and a kind that it does not serve. A replacement that finds nothing fails, so the copy
stays honest.

A real one can be given instead: `VOLAGENT_OTHER_VERSION` names a directory with a package
`volagent` in it, such as a checkout of the last release.
"""

import os
import shutil
from pathlib import Path

import volagent

PACKAGE = Path(volagent.__file__).parent
GIVEN = os.environ.get("VOLAGENT_OTHER_VERSION", "")
NEXT = "99.0.0"
_EDITS = (
    ("__init__.py", f'"{volagent.__version__}"', f'"{NEXT}"'),
    # The agent: its Node, CSINode, Lease, pods, records, and what it remembers.
    ("node/register.py", '"bootID": boot_id,',
     '"bootID": boot_id, "nextInfo": {"colour": "blue"},'),
    ("node/register.py", '"addresses": [', '"nextStatus": ["new"], "addresses": ['),
    ("node/register.py", '"name": driver, "nodeID": node,',
     '"name": driver, "nextField": 7, "nodeID": node,'),
    ("node/lease.py", '"holderIdentity": self._node,',
     '"holderIdentity": self._node, "nextField": {"a": 1},'),
    ("node/pods.py", 'status: Document = {"phase": "Pending",',
     'status: Document = {"nextStatus": "new", "phase": "Pending",'),
    ("node/records.py", 'pod_name: str = ""',
     'pod_name: str = ""\n    next_field: str = msgspec.field(default_factory=lambda: "new")'),
    ("node/checkpoint.py", "    claims: list[PersistentVolumeClaim] = []",
     '    next_field: str = "new"\n    claims: list[PersistentVolumeClaim] = []'),
    ("daemon/renewal.py", '"node": node, "request"', '"nextField": True, "node": node, "request"'),
    # A kind that this version does not serve, which the next one follows.
    ("client/shared.py", "        self.nodes = self.follow(NODES, Node)",
     "        self.nodes = self.follow(NODES, Node)\n"
     '        kind = Resource("next.test", "v1", "nextthings", "NextThing", False, newer=True)\n'
     "        self.next_things = self.follow(kind, Node)"),
    # The server: VolumeAttachments, and what it writes into a Node.
    ("control/attach/documents.py", '"spec": {"attacher": ATTACHER,',
     '"spec": {"nextField": "new", "attacher": ATTACHER,'),
    ("control/attach/nodes.py", 'listed.append({"name": volume,',
     'listed.append({"nextField": "new", "name": volume,'),
    ("control/nodes/decide.py", '"type": "Ready"', '"nextField": "new", "type": "Ready"'),
)  # fmt: skip


def make_next_version(directory: Path) -> Path:
    """The copy, for `PYTHONPATH`."""
    copy = directory / "volagent"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for name, old, new in _EDITS:
        path = copy / name
        text = path.read_text()
        assert old in text, f"{name} has no {old!r}: what does the next version do instead?"
        path.write_text(text.replace(old, new, 1))
    return directory


def other_version(directory: Path) -> Path:
    """The version that is given, or the next one."""
    return Path(GIVEN) if GIVEN else make_next_version(directory)
