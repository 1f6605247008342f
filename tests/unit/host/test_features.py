"""What `doctor` is told about this machine."""

import os

import pytest

from volagent.host.features import detect_features


@pytest.fixture(scope="module")
def features():
    return {feature.name: feature for feature in detect_features()}


def test_each_feature_is_told_once(features):
    assert len(features) == len(detect_features())


def test_missing_feature_says_what_it_costs_and_what_to_do(features):
    for feature in features.values():
        assert feature.detail
        assert feature.available or feature.remedy, feature.name


def test_kernel_is_told_by_its_release(features):
    assert os.uname().release in features["kernel"].detail


def test_tmpfs_is_there_on_every_machine(features):
    assert features["file system tmpfs"].available


def test_looking_opens_nothing_for_good():
    before = len(os.listdir("/proc/self/fd"))
    detect_features()
    assert len(os.listdir("/proc/self/fd")) == before
