"""The command line: find the verb, import it, run it, draw what went wrong.

Global options stand before the verb and are read by hand, because `argosy
--help` and `--version` must start in little more than the interpreter's own time.
Only this module ends the process, and only here is every exception caught.
"""

from __future__ import annotations

import gc
import os
import sys

from .. import errors
from . import commands

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import NoReturn, Protocol, TextIO

    from .host import Host
    from .parser import Parser

    class Verb(Protocol):
        """What every module of a verb offers."""

        def add_arguments(self, parser: Parser) -> None: ...
        def main(self, args: object, host: Host) -> int: ...


BROKEN_PIPE = 141  # 128 + SIGPIPE: what a shell reports of a program that the signal ended
INTERRUPTED = 130  # 128 + SIGINT

#: {global option: (name in the settings, takes a value)}
_GLOBALS = {
    "--root": ("root", True),
    "--driver-root": ("driver_root", True),
    "--debug": ("debug", False),
    "-D": ("debug", False),
    "--version": ("version", False),
    "-v": ("version", False),
    "--help": ("help", False),
    "-h": ("help", False),
}


def entry() -> NoReturn:
    """What `argosy` and `python -m argosy` call.

    Two savings that only a whole process may make; `ps` on two Zen 4 cores, Python
    3.11, processor time: no garbage collection while modules load (51 → 49.5 ms), and
    leaving without tearing the interpreter down (6.5 ms less). By then everything is
    written and every thread joined. --debug leaves the usual way, for profilers.
    """
    _settle_process()
    gc.disable()
    status = main(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        _flush(stream)
    if {"--debug", "-D"}.isdisjoint(sys.argv):
        os._exit(status)
    sys.exit(status)


def main(argv: Sequence[str], environ: Mapping[str, str] | None = None) -> int:
    """Run one command line; gives the exit status. *environ* is the process's own when None."""
    settings: dict[str, str] = {}
    failed = 1  # status of errors that have none of their own
    try:
        rest = _read_globals(list(argv), settings)
        if "help" in settings or rest == ["help"] or (not rest and "version" not in settings):
            return _print(commands.help_text())
        if "version" in settings:
            from .. import __version__

            return _print(f"argosy version {__version__}\n")
        verb, rest = _find_verb(rest)
        failed = 125 if verb in commands.BEFORE_START else 1
        status = _run(verb, rest, settings, environ)
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _silence_stdout()
        return BROKEN_PIPE
    except Exception as error:
        status = _report(error, failed, debug="debug" in settings)
        _flush(sys.stdout)
        return status


def _settle_process() -> None:
    """What a caller may have got wrong, before the first file is opened.

    Where descriptors 0, 1 or 2 are closed, a file of ours would become the container's
    input or output. And no umask shall let others write to the store.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # gets the lowest number that is free: *fd*
    os.umask(os.umask(0o077) | 0o022)


def _read_globals(argv: list[str], settings: dict[str, str]) -> list[str]:
    """Take the options that stand before the verb; what is left begins with the verb."""
    while argv and argv[0].startswith("-"):
        name, equals, value = argv.pop(0).partition("=")
        if name not in _GLOBALS:
            from .parser import UsageError

            raise UsageError(f"unknown option {name}", hint="argosy --help lists the options before a command")
        setting, takes_value = _GLOBALS[name]
        if takes_value and not equals:
            if not argv:
                from .parser import UsageError

                raise UsageError(f"option {name} needs a value")
            value = argv.pop(0)
        settings[setting] = value
    return argv


def _find_verb(argv: list[str]) -> tuple[str, list[str]]:
    """(verb, its arguments); Docker's `image ls` and `help VERB` are other words for the same."""
    name, rest = argv[0], argv[1:]
    if name == "help" and rest:
        verb, _ = _find_verb(rest)
        return verb, ["--help"]
    if name in commands.GROUPS and rest and rest[0] in commands.GROUPS[name]:
        return commands.GROUPS[name][rest[0]], rest[1:]
    if name in commands.VERBS or name in commands.HIDDEN:
        return name, rest
    raise _unknown_verb(name, rest)


def _unknown_verb(name: str, rest: list[str]) -> errors.Error:
    import difflib  # only on this failure

    group = commands.GROUPS.get(name)
    if group is None:
        near = difflib.get_close_matches(name, commands.VERBS, 3, 0.6)
        hint = "argosy --help lists the commands"
    else:
        near = [f"{name} {word}" for word in difflib.get_close_matches("".join(rest[:1]), group, 3, 0.6)]
        hint = f"argosy {name} goes with {' '.join(group)}"
        name = " ".join([name, *rest[:1]])
    if name in commands.LATER:
        near, hint = [], "docker has it, this release has not; argosy --help lists the commands"
    if name in commands.INSTEAD:
        near, hint = [], commands.INSTEAD[name]
    return errors.NotFound(
        f"{name!r} is not an argosy command",
        code="unknown-command",
        hint=f"did you mean {' or '.join(near)}?" if near else hint,
    )


def _run(verb: str, argv: list[str], settings: dict[str, str], environ: Mapping[str, str] | None) -> int:
    if verb not in commands.WITHOUT_MSGSPEC:
        from .lean import import_msgspec

        import_msgspec()
    from .host import Host
    from .parser import Finished, Parser

    module = load_verb(verb)
    parser = Parser(prog=f"argosy {verb}", description=commands.help_line(verb))
    module.add_arguments(parser)
    try:
        args = parser.parse_args(argv)
    except Finished as finished:
        return finished.status
    if not gc.isenabled():  # entry() turned it off
        gc.freeze()
        gc.enable()
    return module.main(args, Host(settings, environ))


def load_verb(verb: str) -> Verb:
    """The module of *verb*, imported."""
    if verb in commands.GROUPED:
        name, _ = commands.GROUPED[verb]
    else:
        name = commands.HIDDEN.get(verb) or commands.VERBS[verb]
    module: Verb = __import__(f"{__name__}.{name}", fromlist=("main",))
    return module


def _print(text: str) -> int:
    if sys.stdout is not None:
        sys.stdout.write(text)
        sys.stdout.flush()
    return 0


def _flush(stream: TextIO | None) -> None:
    try:
        if stream is not None:
            stream.flush()
    except (OSError, ValueError):
        _silence_stdout()


def _silence_stdout() -> None:
    """Nobody reads any more, or the disk is full: let the last flush go nowhere, without a word."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _report(error: Exception, failed: int, *, debug: bool) -> int:
    """Draw *error* on stderr; gives the exit status."""
    from . import output

    shown = output.as_error(error)
    output.error(shown)
    if debug:
        import traceback

        traceback.print_exception(error)
    return shown.exit_status if shown.exit_status != 1 else failed
