"""Host features as values: what is required, what is kept."""

from __future__ import annotations

import pytest

from argosy.errors import Corrupt, Unsupported
from argosy.linux.features import Feature, HostFeatures

YES = Feature(available=True)
FEATURES = HostFeatures(
    key="boot/6.18/0/",
    cgroup="hybrid",
    mount=YES,
    user_namespace=YES,
    newuidmap=YES,
    overlay=YES,
    writable_layers=YES,
    overlay_userns=YES,
    overlay_layerwise=YES,
    erofs_file=Feature(available=False, reason="tried: No such device (ENODEV)", hint="Linux 6.12 or later"),
    idmapped_mounts=YES,
    openat2=YES,
)


def test_a_missing_feature_is_refused_with_reason_and_hint() -> None:
    FEATURES.require("overlay")
    with pytest.raises(Unsupported) as caught:
        FEATURES.require("erofs_file")
    error = caught.value
    assert (error.code, error.message, error.context, error.hint) == (
        "missing-erofs-file",
        "this host lacks erofs file",
        "tried: No such device (ENODEV)",
        "Linux 6.12 or later",
    )


def test_only_yes_or_no_features_can_be_required() -> None:
    with pytest.raises(TypeError):
        FEATURES.require("cgroup")


def test_features_survive_json_and_damage_is_found() -> None:
    assert HostFeatures.from_json(FEATURES.to_json()) == FEATURES
    for damaged in (b"", b"{}", FEATURES.to_json()[:-1], b"[1]"):
        with pytest.raises(Corrupt):
            HostFeatures.from_json(damaged)
