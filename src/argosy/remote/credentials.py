"""User names and passwords for registries: our login file, Docker's, podman's, and credential programs.

All of these files have one form, that of Docker's config.json: `auths`,
`credHelpers`, `credsStore`. We read all of them and write only our own (or the
one that REGISTRY_AUTH_FILE names). Passwords are never part of a message.
Source: docker/cli «config.json», containers-auth.json(5), docker-credential-helpers' protocol.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..errors import Error, InvalidInput, RuntimeFailed
from ..linux.files import reporting, write_atomic
from ..linux.locks import locked
from ..linux.processes import find_program, run_program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

#: Names under which Docker Hub's credentials are kept, the one that Docker writes first.
_DOCKER_HUB = ("https://index.docker.io/v1/", "docker.io", "index.docker.io", "registry-1.docker.io")
_TOKEN_USERS = frozenset({"<token>", "00000000-0000-0000-0000-000000000000"})
_PROGRAM_LIMIT_S = 60.0  # a program may ask the user to unlock a key ring
_FILE_LIMIT = 16 * 2**20  # bytes
_MEND = "mend the file, or remove it and log in again"


class Credential(msgspec.Struct, frozen=True, kw_only=True):
    """Who one is for a registry: a name and password, or an identity token (OAuth2 refresh token)."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    #: where it was found, for messages
    source: str = ""

    @property
    def basic(self) -> str:
        """The value of an Authorization header."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()

    def __repr__(self) -> str:
        return f"Credential(username={self.username!r}, source={self.source!r})"


class Credentials:
    """Finds and keeps credentials. *environ* decides which files and programs there are.

    *uid* is the user's, also when we have become root of a user namespace; *run* is the
    folder of what must not outlive a boot. *helpers* names credential programs that are
    asked last, those of podman's registries.conf.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        uid: int | None = None,
        run: str = "/run",
        helpers: Callable[[], tuple[str, ...]] = tuple,
    ) -> None:
        self._environ = environ
        self._uid = os.getuid() if uid is None else uid
        self._run_folder = Path(run)
        self._helpers = helpers
        #: what went wrong on the way to an answer; shown when a registry refuses us
        self.problems: list[str] = []

    @property
    def own_file(self) -> Path:
        """The file that save writes: REGISTRY_AUTH_FILE, else argosy/auth.json in the user's configuration."""
        named = self._environ.get("REGISTRY_AUTH_FILE")
        return Path(named) if named else self._config_home / "argosy" / "auth.json"

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that are read, the first that knows the registry wins."""
        docker = self._environ.get("DOCKER_CONFIG")
        return (
            self.own_file,
            (Path(docker) if docker else self._home / ".docker") / "config.json",
            *(folder / "auth.json" for folder in self._podman_folders),
            self._config_home / "containers" / "auth.json",
        )

    @property
    def _podman_folders(self) -> tuple[Path, ...]:
        """Where podman, skopeo and buildah keep a login until the next boot; root has no XDG_RUNTIME_DIR, as a rule."""
        runtime = self._environ.get("XDG_RUNTIME_DIR")
        if runtime:
            return (Path(runtime) / "containers",)
        uid = str(self._uid)
        return (self._run_folder / "user" / uid / "containers", self._run_folder / "containers" / uid)

    def find(self, registry: str, repository: str = "") -> Credential | None:
        """The credential for a registry, or for the part of it that *repository* lies in; None is anonymous."""
        for path in self.files:
            document = self._read_leniently(path)
            found = self._from_programs(document, registry, repository)
            found = found or _from_auths(document, registry, repository, path)
            if found is not None:
                return found
        return self._from_helpers(registry)

    def save(self, registry: str, credential: Credential) -> str:
        """Keep a credential; says where: a file's name, or the program that has it. Raises Error."""
        path = self.own_file
        key = keys_of(registry)[0]
        with reporting("make", path.parent):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(path.with_name(path.name + ".lock"), lasting=True):
            document = read_file(path)
            if program := _program_of(document, registry):
                self._run(program, "store", _stored_form(key, credential))
                return f"docker-credential-{program}"
            entry = {"auth": base64.b64encode(f"{credential.username}:{credential.password}".encode()).decode()}
            if credential.identity_token:
                entry["identitytoken"] = credential.identity_token
            document["auths"] = {**_mapping(document, "auths"), key: entry}
            _write(path, document)
        return str(path)

    def delete(self, registry: str) -> bool:
        """Forget a registry; False when our file did not know it. Others' files are left alone: see places."""
        path = self.own_file
        if not path.exists():
            return False
        with locked(path.with_name(path.name + ".lock"), lasting=True):
            document = read_file(path)
            program = _program_of(document, registry)
            if program and self._from_programs(document, registry) is not None:
                self._run(program, "erase", keys_of(registry)[0].encode())
                return True
            auths = _mapping(document, "auths")
            kept = {key: entry for key, entry in auths.items() if key not in keys_of(registry)}
            if len(kept) == len(auths):
                return False
            _write(path, document | {"auths": kept})
            return True

    @property
    def _home(self) -> Path:
        return Path(self._environ.get("HOME") or "/root")

    @property
    def _config_home(self) -> Path:
        named = self._environ.get("XDG_CONFIG_HOME")
        return Path(named) if named else self._home / ".config"

    def _read_leniently(self, path: Path) -> dict[str, Any]:
        """A file that another program broke must not keep us from a public image."""
        try:
            return read_file(path)
        except Error as error:
            self.problems.append(f"{error.message}: {error.context}")
            return {}

    def _from_programs(self, document: Mapping[str, Any], registry: str, repository: str = "") -> Credential | None:
        program = _program_of(document, registry, repository)
        return self._ask(program, registry) if program else None

    def _from_helpers(self, registry: str) -> Credential | None:
        try:
            helpers = self._helpers()
        except Error as error:
            self.problems.append(f"{error.message}: {error.context}")
            return None
        answers = (self._ask(helper, registry) for helper in helpers if os.sep not in helper)
        return next((answer for answer in answers if answer is not None), None)

    def _ask(self, program: str, registry: str) -> Credential | None:
        for key in keys_of(registry):
            try:
                answer = self._run(program, "get", key.encode())
            except Error as error:
                if "not found" not in error.context:  # the protocol's word for «I have none»
                    self.problems.append(f"{error.message}: {error.context}")
                    return None
                continue
            return _parse_answer(answer, program)
        return None

    def _run(self, program: str, action: str, sent: bytes) -> bytes:
        name = f"docker-credential-{program}"
        found = find_program(name, path=self._environ.get("PATH", ""))
        if found is None:
            raise RuntimeFailed(f"no program {name}", code="credential-program-missing", context="not in PATH")
        done = run_program([found, action], env=self._environ, stdin=sent, timeout_s=_PROGRAM_LIMIT_S)
        if done.status != 0:  # the protocol puts the reason on the standard output
            said = (done.stdout + done.stderr).decode(errors="replace").strip()
            raise RuntimeFailed(
                f"{name} {action} failed", code="credential-program-failed", context=said, status=done.status
            )
        return done.stdout


def keys_of(registry: str) -> tuple[str, ...]:
    """The keys under which a registry's credentials may stand, the one to write first."""
    if registry in _DOCKER_HUB:
        return _DOCKER_HUB
    return (registry, f"https://{registry}", f"http://{registry}", f"https://{registry}/v1/", f"https://{registry}/v2/")


def read_file(path: Path) -> dict[str, Any]:
    """A config.json; empty when there is none. Raises InvalidInput (auth-file-invalid), Unauthorized."""
    with reporting("read", path):
        try:
            with path.open("rb") as file:
                raw = file.read(_FILE_LIMIT)
        except (FileNotFoundError, NotADirectoryError):
            return {}
    try:
        document = json.loads(raw or b"{}")
    except ValueError as error:
        raise InvalidInput(f"{path} is not JSON", code="auth-file-invalid", context=str(error), hint=_MEND) from error
    if not isinstance(document, dict):
        raise InvalidInput(f"{path} holds no JSON object", code="auth-file-invalid", hint=_MEND)
    return document


def _write(path: Path, document: dict[str, Any]) -> None:
    """Readable by its owner only."""
    write_atomic(path, json.dumps(document, indent="\t").encode() + b"\n", mode=0o600)


def _mapping(document: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = document.get(key)
    return value if isinstance(value, dict) else {}


def _program_of(document: Mapping[str, Any], registry: str, repository: str = "") -> str:
    """The part of docker-credential-NAME that serves *registry*, or nothing."""
    helpers = _mapping(document, "credHelpers")
    keys = (*_narrower_keys(registry, repository), *keys_of(registry))
    named = next((helpers[key] for key in keys if key in helpers), None) or document.get("credsStore")
    return named if isinstance(named, str) and os.sep not in named else ""


def _from_auths(document: Mapping[str, Any], registry: str, repository: str, path: Path) -> Credential | None:
    auths = _mapping(document, "auths")
    for key in (*_narrower_keys(registry, repository), *keys_of(registry)):
        entry = auths.get(key)
        if isinstance(entry, dict) and (credential := _parse_entry(entry, str(path))) is not None:
            return credential
    return None


def _narrower_keys(registry: str, repository: str) -> Iterator[str]:
    """«host/a/b», «host/a»: podman's keys for a part of a registry. Source: containers-auth.json(5)."""
    while repository:
        yield f"{registry}/{repository}"
        repository = repository.rpartition("/")[0]


def _parse_entry(entry: Mapping[str, Any], source: str) -> Credential | None:
    username, password = str(entry.get("username") or ""), str(entry.get("password") or "")
    try:
        pair = base64.b64decode(str(entry.get("auth") or ""), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        pair = ""
    if pair:
        username, _, password = pair.partition(":")
    token = str(entry.get("identitytoken") or "")
    if not token and not (username and password.rstrip("\0")):
        return None
    return Credential(username=username, password=password.rstrip("\0"), identity_token=token, source=source)


def _parse_answer(answer: bytes, program: str) -> Credential | None:
    try:
        document = json.loads(answer)
        username, secret = str(document["Username"]), str(document["Secret"])
    except (ValueError, KeyError, TypeError):
        return None
    source = f"docker-credential-{program}"
    if username in _TOKEN_USERS:
        return Credential(identity_token=secret, source=source)
    return Credential(username=username, password=secret, source=source) if secret else None


def _stored_form(key: str, credential: Credential) -> bytes:
    username = "<token>" if credential.identity_token else credential.username
    secret = credential.identity_token or credential.password
    return json.dumps({"ServerURL": key, "Username": username, "Secret": secret}).encode()
