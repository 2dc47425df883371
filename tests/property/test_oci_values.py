"""What holds for every digest, reference, platform, manifest and config."""

from __future__ import annotations

import contextlib
import io
import json

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from argosy.errors import Corrupt, InvalidInput
from argosy.oci import descriptor as media
from argosy.oci.config import ImageConfig
from argosy.oci.descriptor import Descriptor
from argosy.oci.digest import ALGORITHMS, Digest, VerifyingReader
from argosy.oci.go_json import encode_as_go, reindented
from argosy.oci.manifest import encode_index, encode_manifest, parse
from argosy.oci.platform import Platform
from argosy.oci.reference import Reference

COMPONENT = st.from_regex(r"[a-z0-9]{1,8}(?:(?:\.|_|__|-{1,3})[a-z0-9]{1,8}){0,2}", fullmatch=True)
REGISTRY = st.one_of(
    st.just("docker.io"),
    st.just("localhost"),
    st.from_regex(r"[a-z0-9]{1,6}(?:\.[a-z0-9]{1,6}){1,2}(?::[0-9]{1,5})?", fullmatch=True),
    st.from_regex(r"\[[0-9a-f]{1,4}::[0-9a-f]{1,4}\](?::[0-9]{1,5})?", fullmatch=True),
)
TAG = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", fullmatch=True)
DIGEST = st.builds(Digest.of, st.binary(max_size=8), st.sampled_from(sorted(ALGORITHMS)))
NEARLY = st.text(alphabet="abAB09:/@.-_[]\n é" + "sha256", max_size=80)


@st.composite
def references(draw: st.DrawFn) -> Reference:
    registry = draw(REGISTRY)
    least = 2 if registry == "docker.io" else 1
    repository = "/".join(draw(st.lists(COMPONENT, min_size=least, max_size=4)))
    tag, digest = draw(st.one_of(st.none(), TAG)), draw(st.one_of(st.none(), DIGEST))
    return Reference(registry=registry, repository=repository, tag=tag if digest or tag else "latest", digest=digest)


@given(references())
def test_a_reference_is_what_its_text_says(reference: Reference) -> None:
    assert Reference.parse(str(reference)) == reference


@given(references())
def test_the_familiar_form_means_the_same(reference: Reference) -> None:
    assert Reference.parse(reference.familiar()) == reference


@given(st.one_of(st.text(), NEARLY))
def test_any_text_is_a_reference_or_invalid_input(text: str) -> None:
    with contextlib.suppress(InvalidInput):
        reference = Reference.parse(text)
        assert Reference.parse(str(reference)) == reference


@given(st.one_of(st.text(), NEARLY))
def test_any_text_is_a_digest_or_invalid_input(text: str) -> None:
    with contextlib.suppress(InvalidInput):
        digest = Digest.parse(text)
        assert (str(digest), "/" in digest.hex, "." in digest.hex) == (text, False, False)


@given(st.one_of(st.text(), st.from_regex(r"[a-z0-9_-]{0,6}(?:/[a-z0-9_-]{0,6}){0,4}")))
def test_any_text_is_a_platform_or_invalid_input(text: str) -> None:
    with contextlib.suppress(InvalidInput):
        platform = Platform.parse(text)
        assert Platform.parse(str(platform)) == platform
        assert platform.rank(platform) == 0


@given(st.binary(max_size=200), st.lists(st.integers(1, 50), max_size=20), st.integers(0, 210), st.integers(0, 7))
def test_a_verifying_reader_gives_true_bytes_or_corrupt(data: bytes, cuts: list[int], place: int, bit: int) -> None:
    """Any cutting of the stream; one flipped bit is always found."""
    changed = bytearray(data)
    if place < len(data):
        changed[place] ^= 1 << bit
    reader = VerifyingReader(io.BytesIO(bytes(changed)), Digest.of(data), size=len(data))
    pieces = []
    try:
        for cut in cuts:
            pieces.append(reader.read(cut))
        pieces.append(reader.read())
    except Corrupt:
        assert bytes(changed) != data
    else:
        assert b"".join(pieces) == bytes(changed) == data


DESCRIPTOR = st.builds(
    Descriptor,
    media_type=st.sampled_from([media.OCI_MANIFEST, media.OCI_LAYER, media.OCI_CONFIG, media.DOCKER_LAYER_GZIP]),
    digest=DIGEST,
    size=st.integers(0, 2**40),
    annotations=st.one_of(st.none(), st.dictionaries(st.text(max_size=5), st.text(max_size=5), min_size=1, max_size=3)),
)


@given(DESCRIPTOR, st.lists(DESCRIPTOR, max_size=4).map(tuple))
def test_a_manifest_reads_back_as_it_was_made(config: Descriptor, layers: tuple[Descriptor, ...]) -> None:
    manifest = encode_manifest(config, layers)
    assert parse(manifest.raw) == manifest
    assert (manifest.config, manifest.layers) == (config, layers)
    assert manifest.descriptor.digest == Digest.of(manifest.raw)


@given(st.lists(DESCRIPTOR, max_size=4).map(tuple))
def test_an_index_reads_back_as_it_was_made(children: tuple[Descriptor, ...]) -> None:
    index = encode_index(children)
    assert parse(index.raw) == index
    assert index.manifests == children


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from("schemaVersion mediaType config layers manifests digest size rootfs history Env".split()),
            inner,
        ),
    ),
    max_leaves=12,
)
DOCUMENTS = st.one_of(st.binary(), JSON.map(msgspec.json.encode))


@given(DOCUMENTS)
def test_any_bytes_are_a_manifest_or_corrupt(raw: bytes) -> None:
    with contextlib.suppress(Corrupt):
        assert parse(raw).raw == raw


@given(DOCUMENTS)
def test_any_bytes_are_a_config_or_corrupt(raw: bytes) -> None:
    with contextlib.suppress(Corrupt):
        assert ImageConfig.parse(raw).raw == raw


@given(st.dictionaries(st.text(min_size=1, max_size=8).filter(lambda key: key not in KNOWN), JSON, max_size=4))
def test_fields_that_we_do_not_know_survive_a_change(extra: dict[str, object]) -> None:
    raw = msgspec.json.encode({"os": "linux", "architecture": "amd64", **extra})
    changed = ImageConfig.parse(raw).with_(author="x")
    assert msgspec.json.decode(changed.raw) == {**msgspec.json.decode(raw), "author": "x"}


KNOWN = frozenset("architecture os variant created author config rootfs history".split())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


@given(JSON, st.sampled_from(["\t", "   "]), st.booleans())
def test_new_white_space_changes_no_document(value: object, indent: str, ascii_only: bool) -> None:
    """Go's layout is Python's too, apart from what is escaped."""
    raw = json.dumps(value, ensure_ascii=ascii_only)
    assert reindented(raw.encode(), indent).decode() == json.dumps(value, indent=indent, ensure_ascii=ascii_only)


@given(JSON)
def test_json_as_go_writes_it_is_safe_within_html_and_means_the_same(value: object) -> None:
    text = encode_as_go(value, "\t").decode()
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == value
