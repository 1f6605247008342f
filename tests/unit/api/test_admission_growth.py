"""Whether a bound claim may ask for more is its class's word."""

import pytest

from volagent.api.admission import Admission, NoSurroundings
from volagent.client.contract import CLAIMS, Forbidden


class OneClassGrows(NoSurroundings):
    def class_can_grow(self, name: str) -> bool:
        return name == "growing"


def claim(size, storage_class="growing", **annotations):
    return {
        "kind": "PersistentVolumeClaim",
        "apiVersion": "v1",
        "metadata": {"name": "c", "namespace": "default", "annotations": annotations},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": storage_class,
            "volumeMode": "Filesystem", "volumeName": "pv",
            "resources": {"requests": {"storage": size}},
        },
        "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}},
    }  # fmt: skip


def update(old, new):
    admission = Admission()
    admission.surroundings = OneClassGrows()
    return admission.prepare_update(CLAIMS, old, new)


def test_claim_grows_when_its_class_lets_it():
    new = update(claim("1Gi"), claim("2Gi"))
    assert new["spec"]["resources"]["requests"]["storage"] == "2Gi"


@pytest.mark.parametrize("storage_class", ["fixed", ""])
def test_claim_of_a_class_that_does_not_grow_is_told_what_to_do(storage_class):
    with pytest.raises(Forbidden, match=r"raise spec\.capacity\.storage of PersistentVolume pv"):
        update(claim("1Gi", storage_class), claim("2Gi", storage_class))


def test_old_annotation_names_the_class():
    beta = {"volume.beta.kubernetes.io/storage-class": "growing"}
    update(claim("1Gi", "", **beta), claim("2Gi", "", **beta))


def test_asking_for_less_again_needs_no_permission():
    update(claim("3Gi", "fixed"), claim("2Gi", "fixed"))
