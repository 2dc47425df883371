"""The store's format version: which programs may use a folder as their store.

`version.json` says {"format", "minimum", "writer"}: the layout that the store has, the
least format that a program must know to use it, and who wrote it. Adding a kind of
file raises *format* alone; changing the meaning of one raises both.
"""

from __future__ import annotations

import os

from .. import __version__
from ..errors import Corrupt, InvalidInput, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import StrPath

FILE = "version.json"
FORMAT = 1
MINIMUM = 1
#: {format: what turns a store of that format into one of the next}; each may be run again after a crash
MIGRATIONS: dict[int, Callable[[StrPath], None]] = {}

#: What a store without version.json may hold: its maker died early, somebody copied a runtime into bin/, or
#: `registry serve`, which needs no store, came before any other verb.
_OURS = frozenset(
    "blobs dropped ingest refs manifests layers containers names tmp cache bin registry unsettled lost+found".split()
)
_HEAD = f'{{"format":{FORMAT},"minimum":{MINIMUM},'


def check_version(root: StrPath) -> None:
    """Make sure that *root* is a store which this program understands; make it one if it is empty or absent.

    One small read when all is well. Where nothing can be made (no right, read-only)
    nothing is: whoever writes later says so in better words.

    Raises Unsupported (store-too-new), InvalidInput (store-foreign), Corrupt (store-version).
    """
    path = os.path.join(root, FILE)
    try:
        with open(path, "rb", buffering=0) as file:
            text = file.read(4096).decode(errors="replace")
    except FileNotFoundError:
        _make(root)
        return
    except OSError as error:
        from ..linux.files import translate

        raise translate(error, "read", path) from error
    if text.startswith(_HEAD):  # the usual case, without the 6 ms that importing json takes
        return
    _compare(root, path, text)


def _make(root: StrPath) -> None:
    try:
        os.makedirs(root, mode=0o700, exist_ok=True)  # images may hold what is not for everybody
        foreign = sorted(name for name in os.listdir(root) if name not in _OURS and not name.startswith("."))
        writable = os.access(root, os.W_OK)
    except OSError:
        return
    if FILE in foreign:  # somebody else has just made the store
        if os.path.exists(os.path.join(root, FILE)):  # NFS may remember for a while that the file was absent
            check_version(root)
        return
    if foreign:
        raise InvalidInput(
            f"{root} is not an argosy store",
            code="store-foreign",
            context=f"it has no {FILE} but holds {', '.join(map(repr, foreign[:5]))}",
            hint="name an empty or absent folder with --root or ARGOSY_ROOT",
        )
    if writable:
        _write(root)


def _write(root: StrPath) -> None:
    from ..linux.files import write_atomic

    write_atomic(os.path.join(root, FILE), f'{_HEAD}"writer":"argosy {__version__}"}}\n'.encode())


def _compare(root: StrPath, path: str, text: str) -> None:
    import json

    try:
        document = json.loads(text)
        found, minimum, writer = int(document["format"]), int(document["minimum"]), str(document.get("writer", "?"))
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise Corrupt(
            f"the store's version file is damaged: {path}",
            code="store-version",
            context=f"{type(error).__name__}: {error}",
            hint=f"if argosy {__version__} was the last to use this store, remove the file",
        ) from error
    if minimum > FORMAT:
        raise Unsupported(
            f"the store {root} is too new for this argosy",
            code="store-too-new",
            context=f"{writer} wrote it in format {found}; argosy {__version__} knows format {FORMAT}",
            hint="update argosy, or use another store with --root",
        )
    if found < FORMAT:
        _migrate(root, path)


def _migrate(root: StrPath, path: str) -> None:
    """Step by step under one lock; version.json is written after each step."""
    import json

    from ..linux.files import write_atomic
    from ..linux.locks import locked

    with locked(os.path.join(root, ".migration.lock")):
        with open(path, "rb") as file:  # another process may have done it while we waited
            found = int(json.load(file)["format"])
        for step in range(found, FORMAT):
            if step not in MIGRATIONS:
                raise Unsupported(
                    f"the store {root} is too old for this argosy",
                    code="store-too-old",
                    context=f"it has format {found}; argosy {__version__} has no way from {step} to {step + 1}",
                    hint="use another store with --root, or the argosy that wrote it",
                )
            MIGRATIONS[step](root)
            done = {"format": step + 1, "minimum": min(step + 1, MINIMUM), "writer": f"argosy {__version__}"}
            write_atomic(path, (json.dumps(done, separators=(",", ":")) + "\n").encode())
