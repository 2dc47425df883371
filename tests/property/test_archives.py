"""Archives of images, whatever is done to their bytes; --change, whatever is typed."""

from __future__ import annotations

import os
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from argosy.errors import Error, InvalidInput
from argosy.oci.config import ImageConfig
from argosy.oci.platform import Platform
from argosy.ops.instructions import changed
from support.image_archives import Shelf, docker_members, layout_members, tar_of
from support.images import random_image

SCRATCH = ImageConfig.scratch(Platform(os="linux", architecture="amd64"))
INSTRUCTIONS = "CMD ENTRYPOINT ENV EXPOSE HEALTHCHECK LABEL ONBUILD STOPSIGNAL USER VOLUME WORKDIR".split()
#: What stands in documents where something else is expected.
TOKENS = (
    *(b"null", b"true", b"-1", b"1e999", b"99999999999999999999", b'""', b"[]", b"{}", b"[[[]]]"),
    *(b'"../x"', b'"\\ud800"', b'"\\u0000"', b'"sha256:zz"', b'"\xff"', b'"application/vnd.oci.image.index.v1+json"'),
)


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], ...]:
    """One image as a layout and as Docker's archive, small."""
    image = random_image(tmp_path_factory.mktemp("image"), size=500, layers=1)
    return layout_members(image.layout), docker_members(image, "box:1")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    if os.geteuid() != 0:
        pytest.skip("needs root (owners of layers)")
    return Shelf(tmp_path_factory.mktemp("store"))


@settings(max_examples=150, deadline=None)
@given(data=some.data())
def test_any_damage_to_a_document_loads_or_is_an_error(
    shelf: Shelf, forms: tuple[dict[str, bytes], ...], data: some.DataObject
) -> None:
    members = dict(data.draw(some.sampled_from(forms)))
    name = data.draw(
        some.sampled_from(sorted(name for name, content in members.items() if content[:1] in (b"{", b"[")))
    )
    content = members[name]
    start = data.draw(some.integers(0, len(content)))
    end = data.draw(some.integers(start, min(len(content), start + 80)))
    filling = data.draw(some.one_of(some.sampled_from(TOKENS), some.binary(max_size=20)))
    members[name] = content[:start] + filling + content[end:]
    load_or_error(shelf, tar_of(members), streamed=data.draw(some.booleans()))


@settings(max_examples=150, deadline=None)
@given(data=some.data())
def test_any_damage_to_the_bytes_loads_or_is_an_error(
    shelf: Shelf, forms: tuple[dict[str, bytes], ...], data: some.DataObject
) -> None:
    archive = tar_of(data.draw(some.sampled_from(forms)))
    start = data.draw(some.integers(0, len(archive)))
    end = data.draw(some.integers(start, min(len(archive), start + 1024)))
    damaged = archive[:start] + data.draw(some.binary(max_size=600)) + archive[end:]
    load_or_error(shelf, damaged, streamed=data.draw(some.booleans()))


def load_or_error(shelf: Shelf, archive: bytes, *, streamed: bool) -> None:
    with suppress(Error):
        shelf.load(archive, streamed=streamed)
    assert not list((shelf.root / "ingest").glob("*.part"))


@given(
    some.one_of(
        some.text(),
        some.builds(
            "{} {}".format,
            some.sampled_from(INSTRUCTIONS),
            some.text(some.sampled_from("ab=/$\\{}:-+\"'[], 1\n#")),
        ),
    )
)
def test_any_text_is_a_change_or_is_refused(text: str) -> None:
    with suppress(InvalidInput):
        made = changed(SCRATCH, [text])
        assert ImageConfig.parse(made.raw) == made
