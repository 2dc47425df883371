"""Error and its kinds: fields, statuses, and that every front end knows every kind."""

from __future__ import annotations

import errno

import pytest

from argosy import errors
from argosy.errors import Error, RuntimeFailed, Unavailable
from argosy.linux import files
from argosy.registry import errors as registry_errors

KINDS = {
    "InvalidInput": 1,
    "NotFound": 1,
    "Conflict": 1,
    "Unauthorized": 1,
    "Unsupported": 1,
    "Unavailable": 1,
    "Corrupt": 1,
    "Exhausted": 1,
    "RuntimeFailed": 125,
    "Cancelled": 130,
}


def test_the_kinds_and_their_exit_statuses() -> None:
    found = {
        name: kind.exit_status
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, Error) and kind is not Error
    }
    assert found == KINDS


def test_an_error_is_a_value_with_separate_fields() -> None:
    error = Error("no such thing", code="thing-unknown", context="looked in /x", hint="make one")
    assert (error.message, error.code, error.context, error.hint) == (
        "no such thing",
        "thing-unknown",
        "looked in /x",
        "make one",
    )
    assert (str(error), repr(error)) == ("no such thing", "Error('no such thing', code='thing-unknown')")


def test_a_failed_program_carries_its_status_and_ours() -> None:
    error = RuntimeFailed("x", code="program-failed", status=3, exit_status=127)
    assert (error.status, error.exit_status) == (3, 127)
    assert RuntimeFailed("x", code="y").exit_status == 125


def test_what_is_unavailable_may_say_when_it_is_back() -> None:
    assert Unavailable("x", code="y", retry_after=2.5).retry_after == 2.5
    assert Unavailable("x", code="y").retry_after is None


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_registry_has_a_status_for_every_kind(kind: str) -> None:
    table = {known.__name__ for known in registry_errors.KINDS}
    assert kind in table


@pytest.mark.parametrize(
    ("number", "kind", "code"),
    [
        (errno.ENOSPC, errors.Exhausted, "disk-full"),
        (errno.EDQUOT, errors.Exhausted, "quota-exceeded"),
        (errno.EACCES, errors.Unauthorized, "permission-denied"),
        (errno.EROFS, errors.Unsupported, "read-only-file-system"),
        (errno.ENOENT, errors.NotFound, "no-such-file"),
        (errno.EIO, errors.Corrupt, "input-output-error"),
        (errno.ESTALE, errors.Unavailable, "stale-file-handle"),
    ],
)
def test_the_systems_errors_have_kinds(number: int, kind: type[Error], code: str) -> None:
    error = files.translate(OSError(number, "what the system says", "/some/path"))
    assert (type(error), error.code) == (kind, code)
    assert "/some/path" in error.message + error.context
