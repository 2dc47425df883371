"""Completion scripts for bash, zsh and fish, from the described commands. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import commands

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from .completion import Command, Option

_DYNAMIC = ("images", "containers")
_GLOBALS = ("--root", "--driver-root", "--debug", "--version", "--help")

_BASH = r"""# bash completion for argosy
_argosy() {
    local cur prev words cword
    if declare -F _get_comp_words_by_ref >/dev/null; then
        _get_comp_words_by_ref -n : cur prev words cword
    else
        cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}
        words=("${COMP_WORDS[@]}") cword=$COMP_CWORD
    fi
    local at=1 path= globals=()
    while ((at < cword)); do
        case ${words[at]} in
            --root | --driver-root) globals+=("${words[at]}" "${words[at + 1]}"); ((at++)) ;;
            -*) globals+=("${words[at]}") ;;
            *) break ;;
        esac
        ((at++))
    done
    if ((at >= cword)); then
        case $prev in --root | --driver-root) COMPREPLY=($(compgen -d -- "$cur")); return ;; esac
        COMPREPLY=($(compgen -W "@VERBS@ @GLOBALS@" -- "$cur"))
        return
    fi
    path=${words[at]}
    case " @NESTED@ " in *" $path/${words[at + 1]} "*) path=$path/${words[at + 1]} ;; esac
    local options= valued= kinds=
    case $path in
@CASES@
    esac
    local pair
    for pair in $valued; do
        if [[ $prev == "${pair%%=*}" ]]; then
            case ${pair#*=} in
                files) COMPREPLY=($(compgen -f -- "$cur")) ;;
                *) pair=${pair#*=}; COMPREPLY=($(compgen -W "${pair//,/ }" -- "$cur")) ;;
            esac
            return
        fi
    done
    if [[ $cur == -* ]]; then
        COMPREPLY=($(compgen -W "$options" -- "$cur"))
        return
    fi
    local kind found=()
    for kind in $kinds; do
        case $kind in
            images | containers)
                found+=($(compgen -W "$("${words[0]}" "${globals[@]}" __complete "$kind" 2>/dev/null)" -- "$cur")) ;;
            files) found+=($(compgen -f -- "$cur")) ;;
            *) found+=($(compgen -W "$kind" -- "$cur")) ;;
        esac
    done
    COMPREPLY=("${found[@]}")
    declare -F __ltrim_colon_completions >/dev/null && __ltrim_colon_completions "$cur"
}
complete -o filenames -F _argosy argosy
"""


def bash(found: Sequence[Command]) -> str:
    """One function and a table of options."""
    cases = []
    for command in found:
        names = " ".join(name for option in command.options for name in option.names)
        with_value = [(name, option.value) for option in command.options if option.value for name in option.names]
        valued = " ".join(f"{name}={value.replace(' ', ',')}" for name, value in with_value)
        kinds = " ".join(command.words)
        cases.append(f"        {'/'.join(command.path)}) options='{names}' valued='{valued}' kinds='{kinds}' ;;")
    return _filled(_BASH, {"CASES": "\n".join(cases), "NESTED": _nested(found)})


_ZSH = r"""#compdef argosy
# zsh completion for argosy
_argosy_names() {
    local -a names
    names=(${(f)"$(argosy __complete $1 2>/dev/null)"})
    compadd -a names
}
_argosy_images() { _argosy_names images }
_argosy_containers() { _argosy_names containers }
_argosy_both() { _argosy_names images; _argosy_names containers }
_argosy() {
    local line state
    local -a verbs
    _arguments -C '--root[keep images and containers in a folder]:folder:_files -/' \
        '--driver-root[look for the NVIDIA driver under a folder]:folder:_files -/' \
        '--debug[show what led to an error]' '--version[print the version]' '--help[print the help]' \
        '1: :->verb' '*:: :->rest'
    case $state in
        verb)
            verbs=(
@VERB_LINES@
            )
            _describe command verbs ;;
        rest)
            case $line[1] in
@CASES@
            esac ;;
    esac
}
_argosy "$@"
"""


def zsh(found: Sequence[Command]) -> str:
    """`_arguments` for each verb; subcommands complete their names."""
    verb_lines = "\n".join(
        f"                {_quote(f'{command.path[0]}:{command.help}')}" for command in found if len(command.path) == 1
    )
    cases = "\n".join(
        f"                {command.path[0]}) _arguments {' '.join(_zsh_arguments(command))} ;;"
        for command in found
        if len(command.path) == 1
    )
    return _filled(_ZSH, {"VERB_LINES": verb_lines, "CASES": cases})


def _zsh_arguments(command: Command) -> Iterable[str]:
    for option in command.options:
        for name in option.names:
            text = option.help.replace("[", "(").replace("]", ")").replace(":", "")
            yield _quote(f"*{name}[{text}]{_zsh_value(option)}")
    yield _quote(f"*: :{_zsh_words(command.words)}")


def _zsh_value(option: Option) -> str:
    if not option.value:
        return ""
    return ":value:_files" if option.value == "files" else f":value:({option.value})"


def _zsh_words(words: Sequence[str]) -> str:
    if not set(words) - {"images", "containers"} and words:
        return "_argosy_both" if len(words) == 2 else f"_argosy_{words[0]}"
    fixed = [word for word in words if word not in ("images", "containers", "files")]
    if "images" in words or "containers" in words:
        return "_argosy_images" if "images" in words else "_argosy_containers"
    return f"({' '.join(fixed)})" if fixed else "_files"


_FISH_GLOBALS = (
    "-l root -r -d 'Keep images and containers in a folder'",
    "-l driver-root -r -d 'Look for the NVIDIA driver under a folder'",
    "-l debug -d 'Show what led to an error'",
)


def fish(found: Sequence[Command]) -> str:
    """One `complete` a verb and an option."""
    verbs = " ".join(dict.fromkeys(command.path[0] for command in found))
    lines = [
        "# fish completion for argosy",
        "complete -c argosy -f",
        f"set -l verbs {verbs}",
        *(f'complete -c argosy -n "not __fish_seen_subcommand_from $verbs" {text}' for text in _FISH_GLOBALS),
    ]
    for command in found:
        lines.extend(_fish_lines(command))
    return "\n".join(lines) + "\n"


def _fish_lines(command: Command) -> Iterable[str]:
    if len(command.path) == 1:
        yield (
            f'complete -c argosy -n "not __fish_seen_subcommand_from $verbs" '
            f"-a {command.path[0]} -d {_quote(command.help)}"
        )
    where = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in command.path)
    start = f'complete -c argosy -n "{where}"'
    for option in command.options:
        names = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names)
        value = "" if not option.value else " -r -F" if option.value == "files" else f" -x -a {_quote(option.value)}"
        yield f"{start} {names}{value} -d {_quote(option.help)}"
    for word in command.words:
        if word in _DYNAMIC:
            yield f"{start} -a '(argosy __complete {word} 2>/dev/null)'"
        else:
            yield f"{start} -F" if word == "files" else f"{start} -a {_quote(word)}"


def _nested(found: Sequence[Command]) -> str:
    return " ".join("/".join(command.path) for command in found if len(command.path) > 1)


def _filled(script: str, parts: Mapping[str, str]) -> str:
    parts = {"VERBS": " ".join(commands.VERBS), "GLOBALS": " ".join(_GLOBALS), **parts}
    for name, text in parts.items():
        script = script.replace(f"@{name}@", text)
    return script


def _quote(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


SCRIPTS: Mapping[str, Callable[[Sequence[Command]], str]] = {"bash": bash, "zsh": zsh, "fish": fish}
