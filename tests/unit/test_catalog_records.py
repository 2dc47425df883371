"""Records: answers hold for a day, layers as long as their blob; damage and lost connections are survived."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from argosy.catalog.records import Made, Records, Release
from argosy.errors import Unavailable
from argosy.oci.digest import Digest
from argosy.store.blobs import BlobStore

if TYPE_CHECKING:
    from pathlib import Path

DAY_S = 86_400


def release(records: Records, version: str) -> Release:
    return Release(day=records.day, version=version, pins={"nvidia-cuda-nvcc": "==13.5.37.*"})


def look_up(records: Records, version: str, *, refresh: bool = False) -> str:
    return records.today(Release, ["cuda", "13"], lambda: release(records, version), refresh=refresh).version


def offline() -> Release:
    raise Unavailable("no connection", code="network-unavailable")


def test_an_answer_holds_for_the_day_and_until_refreshed(tmp_path: Path) -> None:
    records = Records(tmp_path, warn=pytest.fail, now=0)
    assert look_up(records, "13.4.0") == "13.4.0"
    assert look_up(records, "13.5.0") == "13.4.0"
    assert look_up(records, "13.5.0", refresh=True) == "13.5.0"
    assert look_up(Records(tmp_path, warn=pytest.fail, now=DAY_S), "13.6.0") == "13.6.0"


def test_without_a_connection_yesterdays_answer_serves_with_a_warning(tmp_path: Path) -> None:
    look_up(Records(tmp_path, warn=pytest.fail, now=0), "13.4.0")
    warnings: list[str] = []
    records = Records(tmp_path, warn=warnings.append, now=DAY_S)
    assert records.today(Release, ["cuda", "13"], offline, refresh=False).version == "13.4.0"
    assert warnings == ["no connection; using what was found on 1970-01-01"]


def test_without_a_connection_or_an_earlier_answer_it_fails(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        Records(tmp_path, warn=pytest.fail, now=0).today(Release, ["cuda", "13"], offline, refresh=False)


def test_a_damaged_record_is_looked_up_again(tmp_path: Path) -> None:
    records = Records(tmp_path, warn=pytest.fail, now=0)
    look_up(records, "13.4.0")
    for path in tmp_path.iterdir():
        path.write_text('{"day": 3')
    assert look_up(records, "13.5.0") == "13.5.0"


def test_a_layer_is_found_while_its_blob_is_there(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path / "store")
    records = Records(tmp_path / "records", warn=pytest.fail)
    descriptor = blobs.put(b"layer", "application/vnd.oci.image.layer.v1.tar")
    made = Made(
        title="a layer",
        descriptor=descriptor,
        diff_id=Digest.of(b"layer"),
        size=5,
        created=0,
        created_by="argosy catalog: a layer",
        libraries=("usr/lib/libx.so.1",),
        loader_cache=b"\0\xff",
    )
    records.keep_layer(["key", 1], made)
    assert records.find_layer(["key", 1], blobs) == made
    assert records.find_layer(["key", 2], blobs) is None
    blobs.delete(descriptor.digest)
    assert records.find_layer(["key", 1], blobs) is None
