"""Who this machine is to iSCSI targets."""

INITIATOR_FILE = "/etc/iscsi/initiatorname.iscsi"
_KEY = "InitiatorName="


def read_initiator_name(path: str = INITIATOR_FILE) -> str:
    """The name that iscsid gives; "" where there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return ""
    names = [line.strip().removeprefix(_KEY) for line in lines if line.strip().startswith(_KEY)]
    return names[0].strip() if names else ""
