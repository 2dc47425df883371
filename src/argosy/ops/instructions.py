"""--change of `commit` and `import`: instructions of a Dockerfile that change an image's config alone. Pure.

What Docker's Dockerfile parser does with them: words with quotes and variables, JSON
lists, several lines in one text.
Sources: Dockerfile reference; moby `builder/dockerfile` (dispatchers, shell/lex).
"""

from __future__ import annotations

import posixpath
import re
import signal
from typing import TYPE_CHECKING, Any

import msgspec

from ..errors import Corrupt, InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ..oci.config import ImageConfig

_SHELL = ("/bin/sh", "-c")
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h)")
_UNITS_NS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)(?::([-+])([^{}]*))?\}|([A-Za-z_][A-Za-z0-9_]*))")
_PORT = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/(tcp|udp|sctp))?", re.IGNORECASE)
_CHECK_OPTIONS = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start-period": "StartPeriod",
    "start-interval": "StartInterval",
    "retries": "Retries",
}
_Execution = dict[str, Any]  # Docker's `config` object: JSON


def changed(config: ImageConfig, changes: Iterable[str]) -> ImageConfig:
    """*config* after *changes*, in order; as it is without any. Raises InvalidInput (change-invalid)."""
    lines = [line for text in changes for line in _lines(text)]
    if not lines:
        return config
    execution: _Execution = msgspec.json.decode(config.raw).get("config") or {}
    for line in lines:
        name, _, rest = line.partition(" ")
        instruction = _INSTRUCTIONS.get(name.upper())
        if instruction is None:
            raise InvalidInput(
                f"{name.upper()} is not a valid change command",
                code="change-invalid",
                context=f"in {line!r}",
                hint=f"one of {' '.join(sorted(_INSTRUCTIONS))}",
            )
        rest = rest.strip()
        if not rest:
            raise _invalid(line, "it has no argument")
        instruction(execution, rest)
    try:
        return config.with_(execution=execution)
    except UnicodeEncodeError as error:
        raise _invalid(ascii(lines), "it is not UTF-8") from error
    except Corrupt as error:  # a NUL character, as JSON can say it
        raise _invalid("; ".join(lines), error.context) from error


def _cmd(execution: _Execution, rest: str) -> None:
    execution["Cmd"] = _program(execution, rest)


def _entrypoint(execution: _Execution, rest: str) -> None:
    """A command that was meant for another entry point goes, as Docker's builder has it."""
    execution["Entrypoint"] = _program(execution, rest)
    execution["Cmd"] = None


def _env(execution: _Execution, rest: str) -> None:
    environment = dict(entry.partition("=")[::2] for entry in execution.get("Env") or ())
    environment |= _pairs(execution, rest, "ENV")
    execution["Env"] = [f"{name}={value}" for name, value in environment.items()]


def _label(execution: _Execution, rest: str) -> None:
    execution["Labels"] = {**(execution.get("Labels") or {}), **_pairs(execution, rest, "LABEL")}


def _expose(execution: _Execution, rest: str) -> None:
    ports = dict(execution.get("ExposedPorts") or {})
    for word in _expanded_words(execution, rest):
        match = _PORT.fullmatch(word)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if match is None or not 0 < first <= last < 65536:
            raise _invalid(f"EXPOSE {rest}", f"{word!r} is no port: PORT[-PORT][/tcp|udp|sctp]")
        ports |= {f"{port}/{(match[3] or 'tcp').lower()}": {} for port in range(first, last + 1)}
    execution["ExposedPorts"] = ports


def _volume(execution: _Execution, rest: str) -> None:
    listed = _json_list(rest)
    paths = _expanded_words(execution, rest) if listed is None else listed
    if not paths or not all(path.strip() for path in paths):
        raise _invalid(f"VOLUME {rest}", "a path is empty")
    execution["Volumes"] = {**(execution.get("Volumes") or {}), **{path: {} for path in paths}}


def _user(execution: _Execution, rest: str) -> None:
    execution["User"] = _expand(rest, execution)


def _workdir(execution: _Execution, rest: str) -> None:
    path = posixpath.join("/", execution.get("WorkingDir") or "/", _expand(rest, execution))
    execution["WorkingDir"] = posixpath.normpath(path).replace("//", "/")


def _stopsignal(execution: _Execution, rest: str) -> None:
    word = _expand(rest, execution)
    name, _, offset = word.upper().removeprefix("SIG").partition("+")
    known = hasattr(signal.Signals, f"SIG{name}") and (not offset or offset.isdecimal())
    if not known and not (word.isdecimal() and 0 < int(word) <= signal.SIGRTMAX):
        raise _invalid(f"STOPSIGNAL {rest}", f"there is no signal {word!r}")
    execution["StopSignal"] = word


def _onbuild(execution: _Execution, rest: str) -> None:
    trigger = rest.partition(" ")[0].upper()
    if trigger in ("ONBUILD", "FROM", "MAINTAINER"):
        raise _invalid(f"ONBUILD {rest}", f"{trigger} cannot be a trigger")
    execution["OnBuild"] = [*(execution.get("OnBuild") or ()), rest]


def _healthcheck(execution: _Execution, rest: str) -> None:
    check: _Execution = {}
    while rest.startswith("--"):
        option, _, rest = rest.partition(" ")
        rest = rest.strip()
        name, equals, value = option[2:].partition("=")
        if name not in _CHECK_OPTIONS or not equals:
            raise _invalid(f"HEALTHCHECK {option}", f"options are {', '.join(f'--{each}=' for each in _CHECK_OPTIONS)}")
        check[_CHECK_OPTIONS[name]] = _retries(value) if name == "retries" else _nanoseconds(value, option)
    kind, _, program = rest.partition(" ")
    if kind.upper() == "NONE" and not program and not check:
        execution["Healthcheck"] = {"Test": ["NONE"]}
        return
    if kind.upper() != "CMD" or not program.strip():
        raise _invalid(f"HEALTHCHECK {rest}", "it is NONE, or CMD and a program")
    listed = _json_list(program.strip())
    test = ["CMD-SHELL", program.strip()] if listed is None else ["CMD", *listed]
    execution["Healthcheck"] = {"Test": test, **check}


_INSTRUCTIONS: Mapping[str, Callable[[_Execution, str], None]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "ONBUILD": _onbuild,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}


def _lines(text: str) -> list[str]:
    """The instructions of one text: a backslash joins lines, «#» begins a comment line."""
    joined = re.sub(r"\\[ \t]*\r?\n", "", text)
    lines = (line.strip().replace("\t", " ", 1) for line in joined.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _program(execution: _Execution, rest: str) -> list[str]:
    """A JSON list as it is, anything else for the shell; variables are the shell's at run time."""
    listed = _json_list(rest)
    return [*(execution.get("Shell") or _SHELL), rest] if listed is None else listed


def _json_list(text: str) -> list[str] | None:
    if not text.startswith("["):
        return None
    try:
        return msgspec.json.decode(text, type=list[str])
    except msgspec.ValidationError as error:
        raise _invalid(text, "a JSON list here has strings alone") from error
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return None  # Docker takes it as words then


def _pairs(execution: _Execution, rest: str, name: str) -> dict[str, str]:
    """NAME=VALUE …, or the old form NAME VALUE with blanks in the value."""
    words = _words(rest, name)
    if "=" not in words[0]:
        key, _, value = rest.partition(" ")
        if not value.strip():
            raise _invalid(f"{name} {rest}", f"{name} takes NAME=VALUE")
        return {_expand(key, execution): _expand(value.strip(), execution)}
    found = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not key or not equals:
            raise _invalid(f"{name} {rest}", f"{word!r} is not NAME=VALUE")
        found[_expand(key, execution)] = _expand(value, execution)
    return found


def _expanded_words(execution: _Execution, rest: str) -> list[str]:
    return [_expand(word, execution) for word in _words(rest, "")]


def _words(text: str, name: str) -> list[str]:
    """*text* cut at blanks outside quotes; quotes and backslashes stay."""
    words, word, quote, at = [], "", "", 0
    while at < len(text):
        char = text[at]
        if char == "\\" and quote != "'" and at + 1 < len(text):
            word, at = word + text[at : at + 2], at + 2
            continue
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char.isspace():
            words += [word] if word else []
            word, at = "", at + 1
            continue
        word, at = word + char, at + 1
    if quote:
        raise _invalid(f"{name} {text}".strip(), f"a {quote} is not closed")
    return words + ([word] if word else [])


def _expand(word: str, execution: _Execution) -> str:
    """*word* without its quotes, variables replaced by what the image's own environment says."""
    environment = dict(entry.partition("=")[::2] for entry in execution.get("Env") or ())
    out, quote, at = "", "", 0
    while at < len(word):
        char = word[at]
        if char == "\\" and quote != "'" and at + 1 < len(word):
            keeps = quote == '"' and word[at + 1] not in '"$\\'
            out, at = out + (word[at : at + 2] if keeps else word[at + 1]), at + 2
        elif char == "$" and quote != "'" and (match := _VARIABLE.match(word, at)):
            out, at = out + _value(match, environment, execution), match.end()
        elif char in "'\"" and quote in ("", char):
            quote, at = "" if quote else char, at + 1
        else:
            out, at = out + char, at + 1
    return out


def _value(match: re.Match[str], environment: Mapping[str, str], execution: _Execution) -> str:
    value = environment.get(match[1] or match[4], "")
    if match[2] == "-":
        return value or _expand(match[3], execution)
    if match[2] == "+":
        return _expand(match[3], execution) if value else ""
    return value


def _nanoseconds(text: str, option: str) -> int:
    """A duration as Go writes it: 1m30s, 1.5h."""
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise _invalid(f"HEALTHCHECK {option}", f"{text!r} is no duration, like 30s or 1m30s")
    return sum(round(float(number) * _UNITS_NS[unit]) for number, unit in parts)


def _retries(text: str) -> int:
    if not text.isdecimal() or not int(text[:9]) > 0:
        raise _invalid(f"HEALTHCHECK --retries={text}", "it is a number, at least 1")
    return int(text[:9])


def _invalid(line: str, why: str) -> InvalidInput:
    return InvalidInput(f"not a change: {line[:200]!r}", code="change-invalid", context=why, hint="as in a Dockerfile")
