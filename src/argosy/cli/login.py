"""argosy login: keep a name and password for a registry, after the registry has accepted them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ..errors import InvalidInput, Unauthorized
from ..ops.login import login, parse_registry, verify
from ..remote.credentials import Credential
from . import output

if TYPE_CHECKING:
    from argparse import Namespace

    from .host import Host
    from .parser import Parser

_NGC_USER = "$oauthtoken"  # the literal user name of every NGC API key
_LIMIT = 64 * 1024  # bytes of a password on stdin
_ABOUT = """\
The registry is asked before anything is kept. Logins of docker, podman and
skopeo, and their credential programs, are found too; a login that is known is
tried before a name is asked for. What is typed here is written to one file, or
given to the credential program that this file names for the registry.
"""
_EXAMPLES = """\
examples:
  argosy login ghcr.io
  argosy login nvcr.io -u '$oauthtoken' --password-stdin < ~/ngc-api-key

environment:
  REGISTRY_AUTH_FILE   the file to write, and to read first
                       (default: $XDG_CONFIG_HOME/argosy/auth.json)
  DOCKER_CONFIG        folder of Docker's config.json (default: ~/.docker)
"""


def add_arguments(parser: Parser) -> None:
    parser.explain(_ABOUT, _EXAMPLES)
    add = parser.add_argument
    add(
        "registry", nargs="?", metavar="REGISTRY", help="the registry, with its port if it has one (default: docker.io)"
    )
    add("-u", "--username", metavar="NAME", help="user name; $oauthtoken for an NGC API key (default: ask)")
    add("-p", "--password", metavar="PASSWORD", help="password; everybody here can read it in the list of processes")
    add("--password-stdin", action="store_true", help="read the password from standard input")
    add("--plain-http", action="store_true", help="use plain http with any registry (default: loopback names only)")


def main(args: Namespace, host: Host) -> int:
    registry = parse_registry(args.registry)
    transport = host.transport(plain_http=args.plain_http)
    if not (args.username or args.password or args.password_stdin):
        known = host.credentials.find(registry)
        if known is not None:
            output.write(f"Authenticating with existing credentials... [{known.source}]\n")
            try:
                verify(registry, known, transport=transport)
            except Unauthorized as error:
                if not host.stdin_is_terminal:
                    raise
                output.error(error)
            else:
                output.write("Login Succeeded\n")
                return 0
    place = login(registry, _credential(args, registry, host), transport=transport, credentials=host.credentials)
    if not place.startswith("docker-credential-"):
        output.warning(f"the password is kept unencrypted in {place}; a credential program would keep it safer")
    output.write("Login Succeeded\n")
    return 0


def _credential(args: Namespace, registry: str, host: Host) -> Credential:
    """From the flags, else asked for."""
    if args.password is not None and args.password_stdin:
        raise InvalidInput("--password and --password-stdin exclude each other", code="usage")
    if args.password is not None:
        output.warning("others can read --password in the list of processes; use --password-stdin")
    if args.password_stdin and not args.username:
        raise InvalidInput("--password-stdin needs --username as well", code="usage")
    if (args.username is None or (args.password is None and not args.password_stdin)) and not host.stdin_is_terminal:
        raise InvalidInput(
            "cannot ask for the login: the input is not a terminal",
            code="not-a-terminal",
            hint=f"echo PASSWORD | argosy login {registry} --username NAME --password-stdin",
        )
    username = args.username or _ask_name(registry)
    if args.password_stdin:
        password = sys.stdin.buffer.read(_LIMIT).decode(errors="surrogateescape").rstrip("\r\n")
    else:
        password = args.password if args.password is not None else _ask_password()
    if not username or not password:
        raise InvalidInput(
            "a login needs a user name and a password",
            code="login-empty",
            hint=f"argosy login {registry} --username NAME --password-stdin < FILE",
        )
    if ":" in username:
        raise InvalidInput("a user name cannot hold a colon", code="login-invalid", context="RFC 7617 2")
    return Credential(username=username, password=password)


def _ask_name(registry: str) -> str:
    proposed = _NGC_USER if registry == "nvcr.io" else ""
    sys.stderr.write(f"Username ({proposed}): " if proposed else "Username: ")
    sys.stderr.flush()
    return sys.stdin.readline().strip() or proposed


def _ask_password() -> str:
    from getpass import getpass

    return getpass("Password: ")
