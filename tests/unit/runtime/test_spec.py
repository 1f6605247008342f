import pytest

from tests.unit.runtime.pod_making import make_container, make_objects, make_pod
from volagent.runtime.contract import (
    ContainerSpec,
    HandedVolume,
    OciMount,
    PullPolicy,
    SecurityOptions,
    SpecError,
    SubPathUse,
)
from volagent.runtime.spec import (
    build_container_spec,
    build_devices,
    build_mounts,
    build_specs,
    default_pull_policy,
    merge_security,
    needed_volumes,
    sub_path_uses,
    to_oci,
)

VOLUME = HandedVolume("v", "/pods/v")


def mounts_of(mounts, volumes=None, *, rro=False, **container):
    pod = make_pod(make_container(volumeMounts=mounts, **container))
    return build_mounts(
        pod, pod.spec.containers[0], volumes or {"v": VOLUME}, make_objects(),
        recursive_read_only=rro,
    )  # fmt: skip


def test_volume_is_needed_when_any_container_mounts_or_maps_it():
    pod = make_pod(
        make_container(volumeMounts=[{"name": "a", "mountPath": "/a"}]),
        make_container("second", volumeDevices=[{"name": "b", "devicePath": "/dev/b"}]),
        init=[make_container("first", volumeMounts=[{"name": "c", "mountPath": "/c"}])],
        volumes=[{"name": name, "emptyDir": {}} for name in "abcd"],
    )
    assert needed_volumes(pod) == {"a", "b", "c"}


def test_mount_is_private_writable_and_recursive_when_nothing_is_said():
    assert mounts_of([{"name": "v", "mountPath": "data"}]) == (
        OciMount("/data", "/pods/v", ("rbind", "rw", "rprivate")),
    )


@pytest.mark.parametrize(
    ("mount", "volume"),
    [
        ({"readOnly": True}, VOLUME),
        ({}, HandedVolume("v", "/pods/v", read_only=True)),
        ({}, HandedVolume("v", "/pods/v", always_read_only=True)),
    ],
)
def test_mount_is_read_only_when_mount_claim_or_kind_say_so(mount, volume):
    (made,) = mounts_of([{"name": "v", "mountPath": "/d", **mount}], {"v": volume})
    assert made.options == ("rbind", "ro", "rprivate")


@pytest.mark.parametrize(
    ("propagation", "option"),
    [("None", "rprivate"), ("HostToContainer", "rslave"), ("Bidirectional", "rshared")],
)
def test_propagation_is_told_in_the_kernel_s_words(propagation, option):
    mount = {"name": "v", "mountPath": "/d", "mountPropagation": propagation}
    (made,) = mounts_of([mount], securityContext={"privileged": True})
    assert made.options[-1] == option


@pytest.mark.parametrize(
    ("wish", "supported", "options"),
    [
        ("Disabled", True, ("rbind", "ro", "rprivate")),
        ("IfPossible", True, ("rbind", "ro", "rro", "rprivate")),
        ("IfPossible", False, ("rbind", "ro", "rprivate")),
        ("Enabled", True, ("rbind", "ro", "rro", "rprivate")),
    ],
)
def test_mount_is_recursively_read_only_when_asked_and_possible(wish, supported, options):
    mount = {"name": "v", "mountPath": "/d", "readOnly": True, "recursiveReadOnly": wish}
    assert mounts_of([mount], rro=supported)[0].options == options


@pytest.mark.parametrize(
    ("mount", "message"),
    [
        ({"name": "no"}, 'volume "no" has not been set up'),
        ({"name": "raw"}, "volume raw has volumeMode Block, but is specified in volumeMounts"),
        ({"name": "v", "mountPropagation": "Up"}, 'Unsupported value: "Up"'),
        ({"name": "v", "mountPropagation": "Bidirectional"}, "only to privileged containers"),
        ({"name": "v", "recursiveReadOnly": "Enabled"}, "only be specified when readOnly is true"),
        ({"name": "v", "readOnly": True, "recursiveReadOnly": "Enabled"}, "cannot mount recursiv"),
        ({"name": "v", "readOnly": True, "recursiveReadOnly": "x"}, 'Unsupported value: "x"'),
        (
            {
                "name": "v", "readOnly": True, "recursiveReadOnly": "IfPossible",
                "mountPropagation": "HostToContainer",
            },
            "mountPropagation is None",
        ),
        ({"name": "v", "subPath": "x"}, "the sub-path has not been bound"),
    ],
)  # fmt: skip
def test_mount_that_cannot_be_made_names_its_place(mount, message):
    volumes = {"v": VOLUME, "raw": HandedVolume("raw", device_path="/dev/x")}
    with pytest.raises(SpecError, match=message) as caught:
        mounts_of([{"mountPath": "/d", **mount}], volumes)
    assert caught.value.field.startswith("main.volumeMounts[0]")


def test_shallow_destinations_come_first_so_that_nothing_is_hidden():
    wanted = ["/a/b/c", "/a", "/", "/a/b/", "/z"]
    made = mounts_of([{"name": "v", "mountPath": path} for path in wanted])
    assert [mount.destination for mount in made] == ["/", "/a", "/z", "/a/b/", "/a/b/c"]


def test_sub_path_is_mounted_from_where_it_was_bound():
    volume = HandedVolume("v", "/pods/v", sub_paths={("main", 1): "/pods/sub/1"})
    made = mounts_of(
        [{"name": "v", "mountPath": "/a"}, {"name": "v", "mountPath": "/b", "subPath": "x"}],
        {"v": volume},
    )
    assert [mount.source for mount in made] == ["/pods/v", "/pods/sub/1"]


def test_whole_volume_is_mounted_when_the_expression_is_empty():
    mount = {"name": "v", "mountPath": "/a", "subPathExpr": "$(E)"}
    (made,) = mounts_of([mount], env=[{"name": "E", "value": ""}])
    assert made.source == "/pods/v"


def test_sub_paths_are_told_with_container_and_index():
    pod = make_pod(
        make_container(
            env=[{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            volumeMounts=[
                {"name": "v", "mountPath": "/a"},
                {"name": "v", "mountPath": "/b", "subPath": "x/y"},
                {"name": "w", "mountPath": "/c", "subPathExpr": "logs/$(N)/$$(N)"},
            ],
        )
    )
    uses, errors = sub_path_uses(pod, make_objects())
    assert uses == (
        SubPathUse("v", "main", 1, "x/y"),
        SubPathUse("w", "main", 2, "logs/web/$(N)"),
    )
    assert errors == ()


@pytest.mark.parametrize(
    ("mount", "message"),
    [
        ({"subPath": "/abs"}, "error SubPath `/abs` must not be an absolute path"),
        ({"subPath": "a/../b"}, "unable to provision SubPath `a/../b`: must not contain '..'"),
        ({"subPathExpr": "$(UP)/x"}, "unable to provision SubPath `../x`: must not contain '..'"),
        (
            {"subPathExpr": "$(NO)"},
            'failed to expand subPath expression `$(NO)`: missing value for "NO"',
        ),
    ],
)
def test_sub_path_that_leads_outside_or_is_undefined_is_an_error(mount, message):
    pod = make_pod(
        make_container(
            env=[{"name": "UP", "value": ".."}],
            volumeMounts=[{"name": "v", "mountPath": "/a", **mount}],
        )
    )
    uses, (error,) = sub_path_uses(pod, make_objects())
    assert uses == ()
    assert error.message == message


def test_dots_inside_a_name_are_no_way_up():
    pod = make_pod(
        make_container(volumeMounts=[{"name": "v", "mountPath": "/a", "subPath": "a..b/..c"}])
    )
    assert sub_path_uses(pod, make_objects())[0][0].path == "a..b/..c"


def test_device_is_readable_only_when_the_volume_is_read_only():
    pod = make_pod(make_container(volumeDevices=[{"name": "v", "devicePath": "/dev/x"}]))
    (container,) = pod.spec.containers
    for read_only, permissions in ((True, "r"), (False, "mrw")):
        volume = HandedVolume("v", device_path="/dev/loop7", read_only=read_only)
        (device,) = build_devices(container, {"v": volume})
        assert device.permissions == permissions
        assert (device.container_path, device.host_path) == ("/dev/x", "/dev/loop7")
    with pytest.raises(SpecError, match="volumeMode Filesystem, but is specified in volumeDevices"):
        build_devices(container, {"v": VOLUME})


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("app", PullPolicy.ALWAYS),
        ("app:latest", PullPolicy.ALWAYS),
        ("host:5000/app", PullPolicy.ALWAYS),
        ("host:5000/app:1", PullPolicy.IF_NOT_PRESENT),
        ("app@sha256:0123", PullPolicy.IF_NOT_PRESENT),
    ],
)
def test_pull_policy_follows_the_tag_when_none_is_given(image, policy):
    assert default_pull_policy(image) is policy


def test_container_s_security_context_lies_over_the_pod_s():
    pod = make_pod(
        make_container(
            securityContext={
                "runAsUser": 0, "allowPrivilegeEscalation": False,
                "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]},
                "readOnlyRootFilesystem": True, "seLinuxOptions": {"level": "s0:c1"},
            }
        ),
        securityContext={
            "runAsUser": 1000, "runAsGroup": 2000, "fsGroup": 3000, "supplementalGroups": [4000],
        },
    )  # fmt: skip
    assert merge_security(pod, pod.spec.containers[0]) == SecurityOptions(
        uid=0, gid=2000, groups=(4000, 3000), no_new_privileges=True,
        add_capabilities=("NET_ADMIN",), drop_capabilities=("ALL",), selinux=("level:s0:c1",),
        read_only_root=True,
    )  # fmt: skip


def test_root_is_refused_when_it_is_forbidden():
    pod = make_pod(make_container(), securityContext={"runAsNonRoot": True, "runAsUser": 0})
    with pytest.raises(SpecError, match="breaks non-root policy"):
        merge_security(pod, pod.spec.containers[0])


def test_spec_has_everything_expanded():
    pod = make_pod(
        make_container(
            command=["run", "$(A)"], args=["$$(A)", "$(B)"], workingDir="/w",
            env=[{"name": "A", "value": "1"}],
            resources={"limits": {"cpu": "250m", "memory": "64Mi"}},
        )
    )  # fmt: skip
    spec = build_container_spec(pod, pod.spec.containers[0], {}, make_objects())
    assert spec == ContainerSpec(
        "main", "app:1", PullPolicy.IF_NOT_PRESENT, ("run", "1"), ("$(A)", "$(B)"), {"A": "1"},
        "/w", "web", cpu_limit_millis=250, memory_limit_bytes=64 << 20,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("pod", "hostname"),
    [
        ({}, "web"),
        ({"hostname": "db"}, "db"),
        ({"hostNetwork": True}, ""),
        ({"metadata": {"name": "a" * 62 + ".b"}}, "a" * 62),
    ],
)
def test_hostname_is_the_pod_s_as_far_as_the_kernel_takes_it(pod, hostname):
    made = make_pod(make_container(), **pod)
    spec = build_container_spec(made, made.spec.containers[0], {}, make_objects())
    assert spec.hostname == hostname


def test_environment_is_not_shown():
    spec = ContainerSpec("main", "app:1", env={"PASSWORD": "hunter2"})
    assert "hunter2" not in repr(spec)


def test_one_broken_container_does_not_hold_back_the_others():
    pod = make_pod(
        make_container("good"), make_container("bad", envFrom=[{"secretRef": {"name": "no"}}])
    )
    specs = build_specs(pod, {}, make_objects())
    assert isinstance(specs["good"], ContainerSpec)
    assert isinstance(specs["bad"], SpecError)


def test_mounts_are_written_as_the_oci_specification_has_them():
    assert to_oci((OciMount("/d", "/s", ("rbind", "ro")),)) == [
        {"destination": "/d", "type": "bind", "source": "/s", "options": ["rbind", "ro"]}
    ]
