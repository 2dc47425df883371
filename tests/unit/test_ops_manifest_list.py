"""Composing an index: what is said of each manifest, what an amendment keeps, what may not be in a list."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from argosy.errors import Conflict, InvalidInput, NotFound
from argosy.oci import descriptor as media
from argosy.oci.descriptor import Descriptor
from argosy.oci.digest import Digest
from argosy.oci.manifest import encode_index
from argosy.oci.platform import Platform
from argosy.oci.reference import Reference
from argosy.ops.manifest_list import Changes, annotate, annotated, create
from argosy.ops.push_list import push_list, require_content
from argosy.store.blobs import BlobStore
from argosy.store.lists import ListStore, ManifestList
from argosy.store.refs import RefStore
from support.images import random_image
from support.stores import load_image

if TYPE_CHECKING:
    from pathlib import Path

    from argosy.remote.repository import Repository

NAME = Reference.parse("lab/app:1")
BARE = Descriptor(media_type=media.OCI_MANIFEST, digest=Digest.of(b""), size=0)


@pytest.mark.parametrize(
    ("before", "changes", "after"),
    [
        (None, Changes(), None),
        (None, Changes(os="linux", architecture="amd64"), Platform(os="linux", architecture="amd64")),
        (None, Changes(os="linux"), Platform(os="linux", architecture="")),
        (
            Platform(os="linux", architecture="arm"),
            Changes(variant="v7"),
            Platform(os="linux", architecture="arm", variant="v7"),
        ),
        (
            Platform(os="linux", architecture="amd64"),
            Changes(architecture="aarch64"),
            Platform(os="linux", architecture="arm64"),
        ),
        (
            Platform(os="linux", architecture="amd64"),
            Changes(architecture="armhf"),
            Platform(os="linux", architecture="arm", variant="v7"),
        ),
        (
            Platform(os="windows", architecture="amd64", os_version="10.0.1", os_features=("a",)),
            Changes(os_version="10.0.2", os_features=("b", "a", "b")),
            Platform(os="windows", architecture="amd64", os_version="10.0.2", os_features=("a", "b")),
        ),
    ],
)
def test_what_is_named_changes_and_the_rest_stays(
    before: Platform | None, changes: Changes, after: Platform | None
) -> None:
    assert annotated(msgspec.structs.replace(BARE, platform=before), changes).platform == after


def test_annotations_are_sorted_and_the_last_word_counts() -> None:
    once = annotated(BARE, Changes(annotations={"z": "1", "a": "2"}))
    twice = annotated(once, Changes(annotations={"m": "3", "z": "4"}))
    assert list((twice.annotations or {}).items()) == [("a", "2"), ("m", "3"), ("z", "4")]


@pytest.mark.parametrize(
    "changes", [Changes(os="li/nux", architecture="amd64"), Changes(os="linux", architecture="\x1b[m")]
)
def test_a_platform_that_is_none_is_refused(changes: Changes) -> None:
    with pytest.raises(InvalidInput) as caught:
        annotated(BARE, changes)
    assert caught.value.code == "platform-invalid"


class Shelf:
    """A store with images for two platforms, and lists of them."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "store"
        self.images = [
            random_image(folder / name, size=1000, seed=seed, platform=Platform(os="linux", architecture=name))
            for seed, name in enumerate(("amd64", "arm64"))
        ]
        for image, tag in zip(self.images, ("amd64", "arm64"), strict=True):
            load_image(self.root, image, f"app:{tag}")
        self.blobs, self.refs, self.lists = (kind(self.root) for kind in (BlobStore, RefStore, ListStore))

    def create(self, *names: str, amend: bool = False) -> ManifestList:
        return create(
            NAME,
            list(map(Reference.parse, names)),
            lists=self.lists,
            refs=self.refs,
            blobs=self.blobs,
            connect=unreachable,
            amend=amend,
        )


def unreachable(reference: Reference) -> Repository:
    raise NotFound(f"asked for {reference}", code="asked")


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def sources(own: ManifestList) -> list[str]:
    return [entry.source.familiar() for entry in own.entries]


def test_local_images_make_a_list_in_the_order_given(shelf: Shelf) -> None:
    own = shelf.create("app:arm64", "app:amd64", "app:arm64")
    assert sources(own) == ["app:arm64", "app:amd64"]
    assert [entry.descriptor.platform for entry in own.entries] == [
        Platform(os="linux", architecture="arm64"),
        Platform(os="linux", architecture="amd64"),
    ]
    assert [entry.raw for entry in own.entries] == [image.manifest.raw for image in reversed(shelf.images)]
    assert (
        own.index.raw
        == encode_index(
            tuple(
                msgspec.structs.replace(image.descriptor, platform=Platform(os="linux", architecture=name))
                for image, name in zip(reversed(shelf.images), ("arm64", "amd64"), strict=True)
            )
        ).raw
    )


def test_a_name_that_is_not_here_is_asked_for_in_its_registry(shelf: Shelf) -> None:
    with pytest.raises(NotFound) as caught:
        shelf.create("app:amd64", "app:ppc64le")
    assert caught.value.message == "asked for docker.io/library/app:ppc64le"
    assert shelf.lists.find(NAME) is None


def test_a_list_is_not_overwritten(shelf: Shelf) -> None:
    own = shelf.create("app:amd64")
    with pytest.raises(Conflict) as caught:
        shelf.create("app:arm64")
    assert (caught.value.code, caught.value.hint) == (
        "list-exists",
        "--amend adds to it; argosy manifest rm removes it",
    )
    assert shelf.lists.get(NAME) == own


def test_an_amendment_adds_and_keeps_what_was_annotated(shelf: Shelf) -> None:
    shelf.create("app:amd64", amend=True)
    annotate(NAME, "app:amd64", Changes(variant="v3", annotations={"a": "b"}), lists=shelf.lists)
    own = shelf.create("app:arm64", "app:amd64", amend=True)
    assert sources(own) == ["app:amd64", "app:arm64"]
    assert own.entries[0].descriptor.platform == Platform(os="linux", architecture="amd64", variant="v3")
    assert own.entries[0].descriptor.annotations == {"a": "b"}


def test_an_amendment_replaces_an_image_that_has_moved(shelf: Shelf) -> None:
    shelf.create("app:amd64", "app:arm64")
    annotate(NAME, "app:amd64", Changes(variant="v3"), lists=shelf.lists)
    load_image(shelf.root, shelf.images[1], "app:amd64")
    own = shelf.create("app:amd64", amend=True)
    assert sources(own) == ["app:amd64", "app:arm64"]
    assert own.entries[0].descriptor == own.entries[1].descriptor


def test_a_list_has_no_digest_in_its_name(shelf: Shelf) -> None:
    name = Reference.parse(f"lab/app@{BARE.digest}")
    with pytest.raises(InvalidInput) as caught:
        create(name, [], lists=shelf.lists, refs=shelf.refs, blobs=shelf.blobs, connect=unreachable)
    assert caught.value.code == "reference-has-digest"


def test_content_that_has_gone_is_told_before_anything_is_asked(shelf: Shelf) -> None:
    own = shelf.create("app:amd64")
    entry = own.entries[0]
    require_content(entry, NAME, shelf.blobs)
    gone = entry.manifest.layers[0].digest
    shelf.blobs.delete(gone)
    with pytest.raises(NotFound) as caught:
        require_content(entry, NAME, shelf.blobs)
    error = caught.value
    assert (error.code, error.message) == ("list-content-gone", "the content of app:amd64 is no longer here")
    assert error.context == f"list lab/app:1 took it from the images of this host; blob {gone} is gone"
    assert error.hint == (
        "pull or build it again, or take it from its registry: argosy manifest create --amend lab/app:1 app:amd64"
    )


def test_a_manifest_without_a_platform_is_not_pushed(shelf: Shelf) -> None:
    own = shelf.create("app:amd64")
    bare = msgspec.structs.replace(own.entries[0], descriptor=own.entries[0].manifest.descriptor)
    with pytest.raises(InvalidInput) as caught:
        push_list(msgspec.structs.replace(own, entries=(bare,)), blobs=shelf.blobs, connect=unreachable)
    assert (caught.value.code, caught.value.message) == (
        "platform-missing",
        "manifest app:amd64 must have an OS and Architecture to be pushed to a registry",
    )
    assert caught.value.hint == "argosy manifest annotate --os linux --arch amd64 lab/app:1 app:amd64"


def test_annotating_what_is_not_there_is_an_error(shelf: Shelf) -> None:
    with pytest.raises(NotFound) as caught:
        annotate(NAME, "app:amd64", Changes(), lists=shelf.lists)
    assert caught.value.code == "list-unknown"
    shelf.create("app:amd64")
    with pytest.raises(NotFound) as caught:
        annotate(NAME, "app:arm64", Changes(), lists=shelf.lists)
    assert caught.value.code == "manifest-not-in-list"
