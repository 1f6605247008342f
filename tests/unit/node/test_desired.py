"""The resolver with the real drivers over a host that refuses to be touched."""

import msgspec
import pytest

from volagent.drivers.contract import DriverName, Phase, VolumeKey
from volagent.drivers.layout import Layout
from volagent.drivers.payload import NodeFacts
from volagent.node.desired import Resolver
from volagent.node.index import DesiredIndex
from volagent.objects.pod import read_pod
from volagent.objects.storage import ConfigMap, PersistentVolume, PersistentVolumeClaim, Secret

convert = msgspec.convert


class FakeWorld:
    def __init__(self):
        self.objects = {}

    def add(self, kind, document):
        meta = document["metadata"]
        view = convert(document, kind)
        self.objects[(kind, meta.get("namespace", ""), meta["name"])] = view
        return view

    def claim(self, namespace, name):
        return self.objects.get((PersistentVolumeClaim, namespace, name))

    def volume(self, name):
        return self.objects.get((PersistentVolume, "", name))

    def secret(self, namespace, name):
        return self.objects.get((Secret, namespace, name))

    def config_map(self, namespace, name):
        return self.objects.get((ConfigMap, namespace, name))

    def token(self, pod, need):
        return self.objects.get(("token", need.audience))

    def node_labels(self):
        return {"kubernetes.io/hostname": "node01"}

    def node_facts(self):
        return NodeFacts()


@pytest.fixture
def world():
    return FakeWorld()


@pytest.fixture
def resolver(world, untouchable_drivers):
    return Resolver(untouchable_drivers, Layout("/k"), world)


def a_pod(*volumes, uid="u1", mounted=None, devices=(), **spec):
    names = [v["name"] for v in volumes] if mounted is None else mounted
    container = {
        "name": "c",
        "volumeMounts": [{"name": n, "mountPath": f"/{n}"} for n in names],
        "volumeDevices": [{"name": n, "devicePath": f"/dev/{n}"} for n in devices],
    }
    return read_pod(
        {
            "metadata": {"name": "web", "namespace": "default", "uid": uid},
            "spec": {"containers": [container], "volumes": list(volumes), **spec},
        }
    )


def a_secret(name="s", **data):
    return {"metadata": {"name": name, "namespace": "default"}, "data": data or {"k": "dg=="}}


def bind(world, mode="Filesystem", **source):
    source = source or {"nfs": {"server": "s", "path": "/x"}}
    world.add(
        PersistentVolumeClaim,
        {
            "metadata": {"name": "data", "namespace": "default", "uid": "c1"},
            "spec": {"volumeName": "pv1"},
            "status": {"phase": "Bound"},
        },
    )
    world.add(
        PersistentVolume,
        {
            "metadata": {"name": "pv1"},
            "spec": {
                "capacity": {"storage": "1Gi"}, "volumeMode": mode,
                "claimRef": {"namespace": "default", "name": "data", "uid": "c1"}, **source,
            },
        },
    )  # fmt: skip
    return {"name": "vol", "persistentVolumeClaim": {"claimName": "data"}}


def test_volume_that_no_container_mounts_is_not_wanted(resolver):
    resolved = resolver.resolve_pod(a_pod({"name": "x", "emptyDir": {}}, mounted=[]))
    assert not resolved.volumes
    assert not resolved.problems


def test_missing_secret_is_a_problem_of_its_volume_only(resolver):
    resolved = resolver.resolve_pod(
        a_pod({"name": "s", "secret": {"secretName": "s"}}, {"name": "e", "emptyDir": {}})
    )
    assert list(resolved.volumes) == ["e"]
    assert 'secret "s" not found' in resolved.problems["s"].error
    assert ("Secret", "default", "s") in resolved.references


def test_secret_is_published_at_the_kubelets_path_when_it_is_there(resolver, world):
    world.add(Secret, a_secret())
    resolved = resolver.resolve_pod(a_pod({"name": "s", "secret": {"secretName": "s"}}))
    assert resolved.volumes["s"].use.target == "/k/pods/u1/volumes/kubernetes.io~secret/s"
    assert resolved.volumes["s"].spec.key == VolumeKey("pod/u1/s")


def test_fingerprint_changes_when_the_secret_does(resolver, world):
    pod = a_pod({"name": "s", "secret": {"secretName": "s"}})
    world.add(Secret, a_secret())
    before = resolver.resolve_pod(pod).volumes["s"].use.fingerprint
    world.add(Secret, a_secret(k="eA=="))
    assert resolver.resolve_pod(pod).volumes["s"].use.fingerprint != before


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"drop": "claim"}, 'persistentvolumeclaim "data" not found'),
        ({"drop": "volume"}, "not found"),
        ({"phase": "Pending"}, "PVC is not bound"),
        ({"uid": "other"}, "not bound to PVC"),
        ({"affinity": "node02"}, "NodeAffinity check failed"),
    ],
)
def test_claim_that_cannot_be_used_is_a_problem_with_its_reason(resolver, world, change, error):
    volume = bind(world)
    claim = (PersistentVolumeClaim, "default", "data")
    pv = (PersistentVolume, "", "pv1")
    if "drop" in change:
        del world.objects[claim if change["drop"] == "claim" else pv]
    if "phase" in change:
        status = msgspec.structs.replace(world.objects[claim].status, phase=change["phase"])
        world.objects[claim] = msgspec.structs.replace(world.objects[claim], status=status)
    spec = world.objects[pv].spec if pv in world.objects else None
    if "uid" in change:
        ref = msgspec.structs.replace(spec.claim_ref, uid="other")
        spec = msgspec.structs.replace(spec, claim_ref=ref)
    if "affinity" in change:
        expression = {
            "key": "kubernetes.io/hostname", "operator": "In", "values": [change["affinity"]],
        }  # fmt: skip
        terms = {"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}}
        spec = msgspec.structs.replace(spec, node_affinity=terms)
    if spec is not None:
        world.objects[pv] = msgspec.structs.replace(world.objects[pv], spec=spec)
    assert error in resolver.resolve_pod(a_pod(volume)).problems["vol"].error


def test_nfs_claim_is_a_volume_of_its_pod_named_after_the_persistent_volume(resolver, world):
    resolved = resolver.resolve_pod(a_pod(bind(world)))
    volume = resolved.volumes["vol"]
    assert volume.spec.key == VolumeKey("pod/u1/pv1")
    assert volume.use.target == "/k/pods/u1/volumes/kubernetes.io~nfs/pv1"
    assert volume.spec.backend == "nfs:s"


def test_image_claim_is_one_volume_for_all_pods_of_the_node(resolver, world):
    csi = {
        "driver": "image.volagent.dev",
        "volumeHandle": "a",
        "volumeAttributes": {"path": "a.img"},
    }
    volume = bind(world, csi=csi)
    index = DesiredIndex()
    for uid in ("u1", "u2"):
        index.put(resolver.resolve_pod(a_pod(volume, uid=uid)))
    wanted = index.wanted(VolumeKey("pv/pv1"))
    assert wanted is not None
    assert set(wanted.uses) == {"u1", "u2"}
    assert wanted.phases == (Phase.ATTACH, Phase.PREPARE, Phase.STAGE, Phase.PUBLISH)
    assert wanted.uses["u1"].target == "/k/pods/u1/volumes/kubernetes.io~csi/pv1/mount"


def test_volume_named_twice_in_a_pod_is_published_once_and_writable(resolver, world):
    first = bind(world)
    second = {
        "name": "again",
        "persistentVolumeClaim": {"claimName": "data", "readOnly": True},
    }
    resolved = resolver.resolve_pod(a_pod(second, first))
    assert resolved.volumes["vol"].use is resolved.volumes["again"].use
    assert not resolved.volumes["vol"].use.read_only
    assert resolved.volumes["again"].read_only


def test_block_volume_in_volume_mounts_is_refused_in_the_kubelets_words(resolver, world):
    csi = {
        "driver": "image.volagent.dev",
        "volumeHandle": "a",
        "volumeAttributes": {"path": "a.img"},
    }
    volume = bind(world, mode="Block", csi=csi)
    problem = resolver.resolve_pod(a_pod(volume)).problems["vol"]
    assert problem.error == "volume vol has volumeMode Block, but is specified in volumeMounts"


def test_unknown_csi_driver_is_refused_with_the_drivers_there_are(resolver, world):
    volume = bind(world, csi={"driver": "x.example", "volumeHandle": "a"})
    problem = resolver.resolve_pod(a_pod(volume)).problems["vol"]
    assert "x.example not found" in problem.error
    assert "image.volagent.dev" in problem.remedy


def test_index_keeps_the_last_good_answer_when_a_volume_has_a_problem_later(resolver, world):
    pod = a_pod({"name": "s", "secret": {"secretName": "s"}})
    world.add(Secret, a_secret())
    index = DesiredIndex()
    index.put(resolver.resolve_pod(pod))
    world.objects.clear()
    assert index.put(resolver.resolve_pod(pod)) == set()
    assert index.wanted(VolumeKey("pod/u1/s")) is not None


def test_index_names_exactly_the_pods_that_depend_on_an_object(resolver, world):
    index = DesiredIndex()
    world.add(Secret, a_secret())
    index.put(resolver.resolve_pod(a_pod({"name": "s", "secret": {"secretName": "s"}}, uid="u1")))
    index.put(resolver.resolve_pod(a_pod({"name": "e", "emptyDir": {}}, uid="u2")))
    assert index.pods_referring(("Secret", "default", "s")) == ("u1",)
    index.drop("u1")
    assert index.pods_referring(("Secret", "default", "s")) == ()
    assert index.live == {"u2"}


def test_driver_directories_are_the_kubelets(resolver, world):
    world.add(ConfigMap, {"metadata": {"name": "c", "namespace": "default"}, "data": {"k": "v"}})
    kinds = {
        "a": ({"emptyDir": {}}, "kubernetes.io~empty-dir"),
        "b": ({"configMap": {"name": "c"}}, "kubernetes.io~configmap"),
        "d": ({"downwardAPI": {"items": []}}, "kubernetes.io~downward-api"),
        "e": ({"projected": {"sources": []}}, "kubernetes.io~projected"),
        "f": ({"nfs": {"server": "s", "path": "/p"}}, "kubernetes.io~nfs"),
    }
    pod = a_pod(*({"name": name, **source} for name, (source, _) in kinds.items()))
    resolved = resolver.resolve_pod(pod)
    for name, (_, directory) in kinds.items():
        assert resolved.volumes[name].use.target == f"/k/pods/u1/volumes/{directory}/{name}"
    assert resolved.volumes["a"].spec.driver == DriverName("kubernetes.io/empty-dir")
