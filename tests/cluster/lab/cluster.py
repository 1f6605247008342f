"""A cluster: a storage machine, a server, and two nodes whose agents have joined it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from tests.cluster.lab.daemon import Awaited, Daemon
from tests.cluster.lab.machine import Hardware, Lab, Machine
from tests.cluster.lab.node import Json, VolagentNode

_PORT = 6443
_TOKEN_LIFE_S = 86400
_STORAGE = Hardware(memory_mib=512, disks_mib=(256, 64, 64, 64))
_SERVER = Hardware(memory_mib=512, disks_mib=(128,))
_NODE = Hardware(memory_mib=640, disks_mib=(256,))


SETTINGS = "[failover]\nunsteady_losses = 1000\n"
"""Scenarios lose the same two nodes again and again."""


class Server(Daemon):
    """`volagent server`."""

    verb = "server"

    def __init__(self, machine: Machine, *, settings: str = "") -> None:
        super().__init__(machine, settings=settings)
        self.url = f"https://{machine.address}:{_PORT}"
        self.options["listen"] = ["unix:///run/volagent/volagent.sock", self.url]

    def make_join_command(self) -> str:
        """What makes another machine a node."""
        said = self.volagent(f"token create --ttl {_TOKEN_LIFE_S} --address {self.url}")
        return said.removeprefix("volagent ").strip()

    def volagent(self, arguments: str, *, timeout_s: float = 60.0) -> str:
        """What the command line says to an administrator here."""
        command = f"{self.installation.program} {arguments} --run-dir {self.run_dir}"
        return self.machine.run(command, timeout_s=timeout_s).out

    def events(self, document: Json) -> list[str]:
        """`Reason: message` of an object's events."""
        found = self.call("GET", "/api/v1/events")["items"]
        name, kind = document["metadata"]["name"], document["kind"]
        return [
            f"{each['reason']}: {each['message']}"
            for each in found
            if (each["involvedObject"]["name"], each["involvedObject"]["kind"]) == (name, kind)
        ]


class Agent(VolagentNode):
    """`volagent agent`, of a machine that has joined."""

    verb = "agent"

    def __init__(self, machine: Machine, *, settings: str = "") -> None:
        super().__init__(machine, settings=settings)
        del self.options["node_name"]  # its certificate has it

    @property
    def name(self) -> str:
        """Of its Node."""
        return self.machine.name

    def join(self, command: str) -> None:
        """Make the machine a node of a cluster."""
        self.mount_data()
        program = self.machine.installation.program
        self.machine.run(
            f"{program} {command} --node-name {self.name} --state-dir {self.data}/volagent"
        )


def _add_server(lab: Lab) -> Server:
    return Server(lab.add_machine("server", _SERVER), settings=SETTINGS)


@dataclass(frozen=True)
class Cluster:
    """The machines by what they do; started by `start`."""

    storage: Machine
    server: Server
    nodes: tuple[Agent, ...] = field(default=())

    @classmethod
    def build(cls, lab: Lab, add_server: Callable[[Lab], Server] = _add_server) -> "Cluster":
        """Boot everything, and let the nodes join."""
        storage = lab.add_machine("storage", _STORAGE)
        server = add_server(lab)
        nodes = tuple(Agent(lab.add_machine(name, _NODE)) for name in ("node01", "node02"))
        lab.start_all()
        cluster = cls(storage, server, nodes)
        server.start()
        command = server.make_join_command()

        def enter(node: Agent) -> Awaited:
            node.join(command)
            return node.start()

        with ThreadPoolExecutor() as threads:
            list(threads.map(enter, nodes))
        return cluster

    def clean(self) -> None:
        """Remove what a scenario declared, and see that nothing is left of it anywhere."""
        server = self.server
        lists = server.call_all([("GET", path) for path, _ in _SCENARIO_KINDS])
        server.delete_gone(
            *(
                {**each, "kind": kind}
                for (_, kind), found in zip(_SCENARIO_KINDS, lists, strict=True)
                for each in found["items"]
            ),
            within_s=60.0,
        )
        path = "/apis/storage.k8s.io/v1/volumeattachments"
        for each in server.call("GET", path)["items"]:
            server.wait_gone({**each, "kind": "VolumeAttachment"}, within_s=60.0)
        with ThreadPoolExecutor() as threads:
            list(threads.map(Agent.wait_clean, self.nodes))


_SCENARIO_KINDS = (
    ("/api/v1/pods", "Pod"),
    ("/api/v1/persistentvolumeclaims", "PersistentVolumeClaim"),
    ("/api/v1/persistentvolumes", "PersistentVolume"),
    ("/apis/storage.k8s.io/v1/storageclasses", "StorageClass"),
)


def on(pod: Json, node: Agent) -> Json:
    """The pod, for this node."""
    return {**pod, "spec": {**pod["spec"], "nodeName": node.name}}
