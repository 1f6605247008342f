"""fieldRef and resourceFieldRef: paths, Go's quoting, rounding, what an unset amount means."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volagent.objects.downward import DownwardError, format_map, quote_go, read_field, read_resource
from volagent.objects.pod import Pod, read_pod
from volagent.objects.volumes import ResourceFieldSelector

UID = "0f8fad5b-d9cb-469f-a165-70867728950e"
ALLOCATABLE = {"cpu": "2", "memory": "3Gi", "ephemeral-storage": "10Gi", "hugepages-2Mi": "64Mi"}
SIMPLE_ESCAPES = {
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\",
    '"': '"',
}  # fmt: skip


def a_pod(metadata=None, spec=None, resources=None) -> Pod:
    return read_pod(
        {
            "metadata": {"name": "web", "namespace": "shop", "uid": UID, **(metadata or {})},
            "spec": {
                "containers": [{"name": "app", "resources": resources or {}}],
                "initContainers": [{"name": "prepare", "resources": {"limits": {"cpu": "3"}}}],
                **(spec or {}),
            },
        }
    )


def field_of(pod: Pod, path: str, host_ip: str = "10.0.0.9") -> str:
    return read_field(pod, path, node_name="vm1", host_ip=host_ip)


def read_go_string(text: str) -> str:
    """The value of a Go string literal: the inverse, by the language's specification."""
    assert text[0] == text[-1] == '"'
    out, rest = [], text[1:-1]
    while rest:
        if rest[0] != "\\":
            assert rest[0] != '"'
            assert rest[0].isprintable()
            out.append(rest[0])
            rest = rest[1:]
        elif rest[1] in "xuU":
            length = {"x": 2, "u": 4, "U": 8}[rest[1]]
            code = rest[2 : 2 + length]
            assert code == code.lower()
            out.append(chr(int(code, 16)))
            rest = rest[2 + length :]
        else:
            out.append(SIMPLE_ESCAPES[rest[1]])
            rest = rest[2:]
    return "".join(out)


@given(st.text())
def test_quoted_text_reads_back_as_itself_in_go(text):
    assert read_go_string(quote_go(text)) == text


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        # From strconv/quote_test.go.
        ("\a\b\f\r\n\t\v", r'"\a\b\f\r\n\t\v"'),
        ("\\", r'"\\"'),
        ("\u263a", '"\u263a"'),
        ("\U0010ffff", r'"\U0010ffff"'),
        ("\x04", r'"\x04"'),
        ("!\u00a0!\u2000!\u3000!", r'"!\u00a0!\u2000!\u3000!"'),
        ("\x7f", r'"\x7f"'),
        ('say "hi"', r'"say \"hi\""'),
        ("it's", '"it\'s"'),
        ("", '""'),
    ],
)
def test_text_is_quoted_as_go_does(text, quoted):
    assert quote_go(text) == quoted


def test_map_is_printed_sorted_and_without_final_newline():
    assert format_map({"b": "2", "a": 'x"\n'}) == 'a="x\\"\\n"\nb="2"'
    assert format_map(None) == ""


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("metadata.name", "web"), ("metadata.namespace", "shop"), ("metadata.uid", UID),
        ("metadata.labels", 'app="web"\ntier="front"'), ("metadata.annotations", 'note="a b"'),
        ("metadata.labels['app']", "web"), ("metadata.labels['none']", ""),
        ("metadata.annotations['note']", "a b"), ("spec.nodeName", "vm1"),
        ("spec.serviceAccountName", "default"), ("status.hostIP", "10.0.0.9"),
    ],
)  # fmt: skip
def test_field_of_a_pod_is_read(path, text):
    pod = a_pod({"labels": {"tier": "front", "app": "web"}, "annotations": {"note": "a b"}})
    assert field_of(pod, path) == text


def test_field_is_the_pods_own_when_it_says_so():
    pod = a_pod(spec={"nodeName": "vm7", "serviceAccountName": "robot", "hostNetwork": True})
    assert field_of(pod, "spec.nodeName") == "vm7"
    assert field_of(pod, "spec.serviceAccountName") == "robot"
    assert field_of(pod, "status.podIP") == "10.0.0.9"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("metadata.owner", "unsupported fieldPath: metadata.owner"),
        ("", "unsupported fieldPath"),
        ("['x']", "unsupported fieldPath"),
        ("metadata.name['x']", "does not support subscript"),
        ("status.podIP", "not known before the pod has its network"),
    ],
)
def test_field_is_refused_when_nobody_knows_it(path, words):
    with pytest.raises(DownwardError, match=words.replace("[", "\\[")):
        field_of(a_pod(), path)


def test_address_is_refused_when_the_node_has_none_yet():
    with pytest.raises(DownwardError, match="no address yet"):
        field_of(a_pod(), "status.hostIP", host_ip="")


def resource_of(pod: Pod, resource: str, divisor="0", container="app") -> str:
    return read_resource(pod, ResourceFieldSelector(resource, container, divisor), ALLOCATABLE)


@pytest.mark.parametrize(
    ("resource", "divisor", "text"),
    [
        ("limits.cpu", "1m", "250"), ("limits.cpu", "0", "1"), ("limits.cpu", "1", "1"),
        ("requests.memory", "1Mi", "65"), ("requests.memory", "1M", "68"),
        ("limits.memory", "1Gi", "3"), ("limits.memory", "0", str(3 << 30)),
        ("requests.cpu", "0", "1"), ("requests.ephemeral-storage", "0", "0"),
        ("limits.ephemeral-storage", "1Gi", "10"), ("limits.hugepages-2Mi", "1Mi", "0"),
    ],
)  # fmt: skip
def test_resource_is_divided_and_rounded_up_when_set_and_defaulted_when_not(
    resource, divisor, text
):
    pod = a_pod(resources={"limits": {"cpu": "250m"}, "requests": {"memory": "67108865"}})
    assert resource_of(pod, resource, divisor) == text


def test_resource_of_an_init_container_is_found():
    assert resource_of(a_pod(), "limits.cpu", container="prepare") == "3"


@pytest.mark.parametrize(
    ("resource", "divisor", "container", "words"),
    [
        ("limits.cpu", "0", "ghost", "container ghost not found"),
        ("limits.gpu", "0", "app", "unsupported container resource: limits.gpu"),
        ("cpu", "0", "app", "unsupported container resource: cpu"),
        ("limits.cpu", "x", "app", "must match the regular expression"),
        ("limits.cpu", "-1", "app", "must not be negative"),
    ],
)
def test_resource_is_refused_when_the_selector_makes_no_sense(resource, divisor, container, words):
    with pytest.raises(DownwardError, match=words):
        resource_of(a_pod(), resource, divisor, container)


@given(st.integers(1, 10**12), st.sampled_from(["1", "1k", "1Ki", "1Mi", "1G", "7"]))
def test_rounding_is_up_to_the_next_whole_number(amount, divisor):
    pod = a_pod(resources={"limits": {"memory": amount}})
    size = {"1": 1, "1k": 1000, "1Ki": 1024, "1Mi": 1 << 20, "1G": 10**9, "7": 7}[divisor]
    assert int(resource_of(pod, "limits.memory", divisor)) == math.ceil(Fraction(amount, size))
