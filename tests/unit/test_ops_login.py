"""What people type for a registry's name."""

from __future__ import annotations

import pytest

from argosy.errors import InvalidInput
from argosy.ops.login import parse_registry


@pytest.mark.parametrize(
    ("text", "registry"),
    [
        (None, "docker.io"),
        ("", "docker.io"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
        ("nvcr.io", "nvcr.io"),
        ("https://nvcr.io/", "nvcr.io"),
        ("localhost", "localhost"),
        ("localhost:5000", "localhost:5000"),
        ("[::1]:5000", "[::1]:5000"),
        ("nvcr.io/nvidia", "nvcr.io"),
    ],
)
def test_forms_of_a_registry(text: str | None, registry: str) -> None:
    assert parse_registry(text) == registry


@pytest.mark.parametrize("text", ["nvcr", "nv cr.io", "nvcr.io:port", "-.io", "@"])
def test_what_is_no_registry(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_registry(text)
    assert (caught.value.code, caught.value.message) == ("registry-invalid", f"not a registry: {text!r}")
