import pytest

from volagent.objects.node_affinity import admits_node

LABELS = {"kubernetes.io/hostname": "node01", "zone": "a", "disks": "4"}


def required(*terms):
    return {"required": {"nodeSelectorTerms": list(terms)}}


def term(key, operator, *values):
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}


@pytest.mark.parametrize(
    ("affinity", "admitted"),
    [
        (None, True),
        ({}, True),
        (required(), False),
        (required({}), False),
        (required(term("zone", "In", "a", "b")), True),
        (required(term("zone", "In", "b")), False),
        (required(term("zone", "NotIn", "b")), True),
        (required(term("rack", "NotIn", "b")), True),
        (required(term("zone", "Exists")), True),
        (required(term("rack", "Exists")), False),
        (required(term("rack", "DoesNotExist")), True),
        (required(term("disks", "Gt", "3")), True),
        (required(term("disks", "Gt", "4")), False),
        (required(term("disks", "Lt", "x")), False),
        (required(term("zone", "Near", "a")), False),
        (required(term("zone", "In", "b"), term("zone", "In", "a")), True),
        (required({"matchFields": [{"key": "metadata.name", "operator": "In",
                                    "values": ["node01"]}]}), True),
    ],
)  # fmt: skip
def test_affinity_admits_a_node_as_kubernetes_would(affinity, admitted):
    assert admits_node(affinity, LABELS) is admitted
