"""The registry's table of errors covers everything that can be raised, and shows nothing it should not."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from argosy import errors as kinds
from argosy.oci.digest import Digest
from argosy.registry import errors

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(errors.__file__).parent
#: distribution-spec 1.1 «Error Codes», without those that need accounts and limits
SPECIFIED = {
    *("BLOB_UNKNOWN", "BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN", "DIGEST_INVALID", "MANIFEST_BLOB_UNKNOWN"),
    *("MANIFEST_INVALID", "MANIFEST_UNKNOWN", "NAME_INVALID", "NAME_UNKNOWN", "SIZE_INVALID", "DENIED", "UNSUPPORTED"),
}


def raised(package: Path) -> Iterator[str]:
    """Every code in `SomeError(…, code="…")` of the request path, Corrupt's left out."""
    for path in sorted(package.glob("*.py")):
        if path.name == "serve.py":  # fails before there are requests
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") != "Corrupt":
                yield from (
                    str(word.value.value)
                    for word in node.keywords
                    if word.arg == "code" and isinstance(word.value, ast.Constant)
                )


def test_every_kind_of_error_is_in_the_table() -> None:
    listed = {kind for kind in vars(kinds).values() if isinstance(kind, type) and issubclass(kind, kinds.Error)}
    assert listed == set(errors.KINDS)


def test_every_code_raised_here_is_in_the_table_and_no_other() -> None:
    from_below = {"digest-invalid", "digest-unsupported"}  # oci/digest.py
    assert set(raised(PACKAGE)) | from_below == set(errors.CODES)


def test_client_errors_have_codes_of_the_specification_and_ours_are_unknown() -> None:
    for code, status in [*errors.KINDS.values(), *errors.CODES.values()]:
        assert (code in SPECIFIED) == (status < 500 or status == 501), (code, status)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (kinds.NotFound("x", code="blob-unknown"), ("BLOB_UNKNOWN", 404)),
        (kinds.InvalidInput("x", code="digest-mismatch"), ("DIGEST_INVALID", 400)),
        (kinds.Corrupt("x", code="digest-mismatch"), ("UNKNOWN", 500)),
        (kinds.Exhausted("x", code="disk-full"), ("UNKNOWN", 507)),
        (kinds.Unauthorized("x", code="permission-denied"), ("UNKNOWN", 500)),
        (errors.ContentUnknown("a", ()), ("MANIFEST_BLOB_UNKNOWN", 404)),
    ],
)
def test_an_error_is_answered_by_code_or_by_kind(error: kinds.Error, expected: tuple[str, int]) -> None:
    assert errors.answer(error) == expected


def test_the_body_of_a_client_error_says_what_and_how_to_go_on() -> None:
    response = errors.response(kinds.InvalidInput("bad", code="name-invalid", context="because", hint="do this"))
    assert response.status == 400
    assert response.body == b'{"errors":[{"code":"NAME_INVALID","message":"bad: because","detail":"do this"}]}'


def test_a_fault_of_ours_tells_no_paths() -> None:
    response = errors.response(kinds.Exhausted("cannot write /srv/x", code="disk-full", context="/srv is full"))
    body = b'{"errors":[{"code":"UNKNOWN","message":"insufficient storage","detail":"disk-full"}]}'
    assert (response.status, response.body) == (507, body)


def test_unavailable_says_when_to_try_again() -> None:
    response = errors.response(kinds.Unavailable("later", code="locked", retry_after=0.2))
    assert (response.status, response.headers["retry-after"]) == (503, "1")


def test_each_absent_digest_is_an_entry() -> None:
    digests = (Digest.of(b"a"), Digest.of(b"b"))
    body = errors.response(errors.ContentUnknown("a/b", digests)).body
    assert isinstance(body, bytes)
    assert [body.count(digest.encode()) for digest in digests] == [1, 1]
