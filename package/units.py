"""The systemd units of all roles, from one template.

    python -m package.units DIRECTORY [PROGRAM]

writes them into a directory; PROGRAM is where volagent is installed.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

TEMPLATE = Path(__file__).parents[1] / "systemd" / "volagent.service.in"
PROGRAM = "/usr/bin/volagent"


@dataclass(frozen=True, slots=True)
class Role:
    """What differs between the units."""

    unit: str
    command: str
    description: str


ROLES = (
    Role("volagent.service", "run", "Persistent volumes for containers"),
    Role("volagent-server.service", "server", "Server of persistent volumes for containers"),
    Role("volagent-agent.service", "agent", "Persistent volumes for containers, of a server"),
)


def render_unit(template: str, role: Role, program: str = PROGRAM) -> str:
    """The text of one unit."""
    conflicts = " ".join(other.unit for other in ROLES if other is not role)
    values = {
        "description": role.description,
        "command": role.command,
        "conflicts": conflicts,
        "program": program,
    }
    # The template's own head says how it is made; the unit's begins with its rule.
    text = template[template.index("# One rule above all") :]
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text


def write_units(directory: Path, program: str = PROGRAM) -> None:
    """Write all units, each under its name."""
    template = TEMPLATE.read_text()
    for role in ROLES:
        (directory / role.unit).write_text(render_unit(template, role, program))


if __name__ == "__main__":
    write_units(Path(sys.argv[1]), *sys.argv[2:3])
