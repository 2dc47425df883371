"""Names of images: Docker's familiar forms, in full and back."""

from __future__ import annotations

import pytest

from argosy.errors import InvalidInput
from argosy.oci.digest import Digest
from argosy.oci.reference import Reference, is_repository, is_tag

SHA = "sha256:" + "7173b809" * 8
SHA512 = "sha512:" + "7173b809" * 16


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("ubuntu", "docker.io/library/ubuntu:latest", "ubuntu:latest"),
        ("ubuntu:24.04", "docker.io/library/ubuntu:24.04", "ubuntu:24.04"),
        ("nvidia/cuda:12.6-base", "docker.io/nvidia/cuda:12.6-base", "nvidia/cuda:12.6-base"),
        ("docker.io/ubuntu", "docker.io/library/ubuntu:latest", "ubuntu:latest"),
        ("docker.io/library/ubuntu", "docker.io/library/ubuntu:latest", "ubuntu:latest"),
        ("index.docker.io/nvidia/cuda", "docker.io/nvidia/cuda:latest", "nvidia/cuda:latest"),
        ("docker.io/library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
        ("nvcr.io/nvidia/pytorch:26.10-py3", "nvcr.io/nvidia/pytorch:26.10-py3", "nvcr.io/nvidia/pytorch:26.10-py3"),
        ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
        ("localhost:5000/x", "localhost:5000/x:latest", "localhost:5000/x:latest"),
        ("localhost:5000", "docker.io/library/localhost:5000", "localhost:5000"),
        (f"localhost:5000/a/b/c:tag@{SHA}", f"localhost:5000/a/b/c:tag@{SHA}", f"localhost:5000/a/b/c:tag@{SHA}"),
        (f"ubuntu@{SHA}", f"docker.io/library/ubuntu@{SHA}", f"ubuntu@{SHA}"),
        (f"ubuntu@{SHA512}", f"docker.io/library/ubuntu@{SHA512}", f"ubuntu@{SHA512}"),
        ("127.0.0.1:5000/x:1", "127.0.0.1:5000/x:1", "127.0.0.1:5000/x:1"),
        ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"),
        ("[2001:db8::1]/x:1", "[2001:db8::1]/x:1", "[2001:db8::1]/x:1"),
        ("Registry/x", "Registry/x:latest", "Registry/x:latest"),
        ("a.b/c", "a.b/c:latest", "a.b/c:latest"),
        ("a/b", "docker.io/a/b:latest", "a/b:latest"),
        ("a__b/c.d-e---f:_under.tag-1", "docker.io/a__b/c.d-e---f:_under.tag-1", "a__b/c.d-e---f:_under.tag-1"),
        ("x:" + "t" * 128, "docker.io/library/x:" + "t" * 128, "x:" + "t" * 128),
        ("deadbeef", "docker.io/library/deadbeef:latest", "deadbeef:latest"),
    ],
)
def test_a_name_is_understood_as_docker_understands_it(text: str, full: str, familiar: str) -> None:
    reference = Reference.parse(text)
    assert (str(reference), reference.familiar()) == (full, familiar)
    assert Reference.parse(full) == reference
    assert Reference.parse(familiar) == reference


def test_the_parts_of_a_name() -> None:
    assert Reference.parse(f"localhost:5000/a/b/c:tag@{SHA}") == Reference(
        registry="localhost:5000", repository="a/b/c", tag="tag", digest=Digest(SHA)
    )
    assert Reference.parse(f"a@{SHA}").tag is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it is empty"),
        (":", "bad tag '': letters, digits, «_», «.», «-», at most 128"),
        ("x:", "bad tag '': letters, digits, «_», «.», «-», at most 128"),
        ("x:-a", "bad tag '-a': letters, digits, «_», «.», «-», at most 128"),
        ("x:" + "t" * 129, f"bad tag {'t' * 129!r}: letters, digits, «_», «.», «-», at most 128"),
        ("x:é", "bad tag 'é': letters, digits, «_», «.», «-», at most 128"),
        ("x:a\n", "bad tag 'a\\n': letters, digits, «_», «.», «-», at most 128"),
        ("Ubuntu", "'Ubuntu' must be lower case"),
        ("a/Ubuntu", "'Ubuntu' must be lower case"),
        ("/x", "bad name component ''"),
        ("x/", "bad name component ''"),
        ("a//b", "bad name component ''"),
        ("-x", "bad name component '-x'"),
        ("x_", "bad name component 'x_'"),
        ("a..b/c", "bad registry 'a..b'"),
        ("a___b", "bad name component 'a___b'"),
        ("a b", "bad name component 'a b'"),
        ("../etc/passwd", "bad registry '..'"),
        ("https://ubuntu", "names have no scheme"),
        ("host:port/x", "bad registry 'host:port'"),
        ("[::1/x", "bad registry '[::1'"),
        ("x@", "not a digest: ''"),
        ("x@sha256:abc", "not a sha256 digest: 'sha256:abc'"),
        (f"x@{SHA.upper()}", f"not a digest: {SHA.upper()!r}"),
        ("x@md5:" + "0" * 32, "digest algorithm 'md5' is not supported"),
        (f"x@{SHA}@{SHA}", f"not a digest: '{SHA}@{SHA}'"),
        ("0123456789abcdef" * 4, "64 hex digits are an image id, not a name"),
        ("a/" + "b" * 244, "the name is longer than 255 characters"),
    ],
)
def test_a_bad_name_is_refused_with_its_reason(text: str, why: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Reference.parse(text)
    error = caught.value
    assert (error.code, error.message, error.context) == ("reference-invalid", f"not an image name: {text!r}", why)
    wanted = "names look like [registry/]repository[:tag][@sha256:…], lower case"
    assert error.hint == ("leave out 'https://'; --plain-http chooses http" if "://" in text else wanted)


def test_a_name_of_255_characters_is_the_longest() -> None:
    assert len(Reference.parse("a/" + "b" * 243).name) == 255


def test_with_tag_drops_the_digest_and_with_digest_the_tag() -> None:
    reference = Reference.parse(f"a/b:1@{SHA}")
    assert str(reference.with_tag("2")) == "docker.io/a/b:2"
    assert str(reference.with_digest(Digest(SHA))) == f"docker.io/a/b@{SHA}"
    with pytest.raises(InvalidInput, match="not an image name: '-'"):
        reference.with_tag("-")


@pytest.mark.parametrize(
    ("text", "valid"), [("a", True), ("a/b/c", True), ("A", False), ("", False), ("a//b", False), ("a" * 256, False)]
)
def test_repository_paths_of_the_distribution_spec(text: str, valid: bool) -> None:
    assert is_repository(text) is valid


@pytest.mark.parametrize(
    ("text", "valid"), [("1.0", True), ("_a", True), (".a", False), ("", False), ("a" * 129, False)]
)
def test_tags_of_the_distribution_spec(text: str, valid: bool) -> None:
    assert is_tag(text) is valid
