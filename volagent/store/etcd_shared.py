"""What all servers of one store share besides objects: the token key, the certificate authority.

Each is written once, by whichever server comes first, and never changed here.
"""

from volagent.store import etcd_wire as wire
from volagent.store.contract import Corrupt
from volagent.store.etcd import EtcdStore


async def read_shared(store: EtcdStore, name: str) -> bytes | None:
    """What is shared under a name, if anything yet. Raises `Unreachable`."""
    found = await store.client.read(wire.read(store.layout.shared_key(name)))
    return found.kvs[0].value if found.kvs else None


async def offer_shared(store: EtcdStore, name: str, value: bytes) -> bytes:
    """Share this unless something is shared already; what is. Raises `Unreachable`."""
    key = store.layout.shared_key(name)
    request = wire.txn([wire.is_at(key, 0)], [wire.put(key, value)], [])
    await store.client.insist("kv/txn", request, wire.Txn)
    held = await read_shared(store, name)
    if held is None:
        raise Corrupt(f"{key.decode()} in etcd was removed just now")
    return held
