"""Every failure that Argosy reports, by what the caller can do about it.

An Error is a value with separate fields; drawing it is the front ends' work
(`cli/output.py`, `registry/errors.py`), and each front end maps kinds to its own
statuses in one table. Nothing here knows about terminals or HTTP.
"""

from __future__ import annotations


class Error(Exception):
    """What failed, on which object, why, and what to type next.

    *code* is a stable kebab-case name («tag-unknown») that scripts and tests may
    rely on; *message* one lower-case line that names the object in full;
    *context* the facts, zero or more lines; *hint* something to type or to ask
    an administrator for.
    """

    #: Exit status of a verb that ends with this error (Docker: 1; 125 before a container ran).
    exit_status = 1

    def __init__(self, message: str, *, code: str, context: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.context = context
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        """Errors go from process to process; their keyword arguments need help."""
        return _revived, (type(self), self.args), self.__dict__

    def __str__(self) -> str:
        return self.message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.message!r}, code={self.code!r})"


def _revived(kind: type[Error], args: tuple[object, ...]) -> Error:
    return kind.__new__(kind, *args)


class InvalidInput(Error):
    """The request itself is wrong; the caller must change it."""


class NotFound(Error):
    """The named object does not exist."""


class Conflict(Error):
    """The object exists already, or is in use."""


class Unauthorized(Error):
    """Log in, or ask for the right."""


class Unsupported(Error):
    """This host or that peer lacks what is asked for."""


class Unavailable(Error):
    """Try again later; *retry_after* is in seconds when the peer named a time."""

    def __init__(
        self, message: str, *, code: str, context: str = "", hint: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(message, code=code, context=context, hint=hint)
        self.retry_after = retry_after


class Corrupt(Error):
    """Data lies: digest, size or format is not what was promised."""


class Exhausted(Error):
    """Disk space, quota or another limit is used up."""


class RuntimeFailed(Error):
    """A program that we started said no; *status* is its exit status.

    126 and 127 are Docker's: found but not executable, not found.
    """

    exit_status = 125

    def __init__(
        self,
        message: str,
        *,
        code: str,
        context: str = "",
        hint: str = "",
        status: int | None = None,
        exit_status: int = 125,
    ) -> None:
        super().__init__(message, code=code, context=context, hint=hint)
        self.status = status
        self.exit_status = exit_status


class Cancelled(Error):
    """The user stopped the verb."""

    exit_status = 130
