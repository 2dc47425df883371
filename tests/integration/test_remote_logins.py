"""Logins as people have them: written by podman, skopeo, buildah and docker, kept by programs, NGC's."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from support.docker_registry import PASSWORD, USER, docker_registry
from support.images import random_image
from support.proxy import proxying
from support.registry import running_registry
from support.stores import argosy, command, environment, load_image
from support.tls import Authority
from support.tokens import guarded
from support.web import Reply, Seen, forward, serving

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from support.images import RandomImage
    from support.registry import RunningRegistry

LOGINS = {
    "podman": ("podman", "login", "--tls-verify=false"),
    "skopeo": ("skopeo", "login", "--tls-verify=false"),
    "buildah": ("buildah", "login", "--tls-verify=false"),
    "docker": ("docker", "login"),
}
#: A docker-credential-… of the tests: keeps what it is given in files of the folder $STORE.
PROGRAM = """#!/bin/sh
mkdir -p "$STORE"; sent=$(cat)
case "$1" in
get) cat "$STORE/$(printf %s "$sent" | tr / _)" 2>/dev/null || { echo "credentials not found"; exit 1; };;
store) printf %s "$sent" > "$STORE/$(printf %s "$sent" | sed 's/.*"ServerURL": *"\\([^"]*\\)".*/\\1/' | tr / _)";;
erase) rm -f "$STORE/$(printf %s "$sent" | tr / _)";;
list) echo '{}';;
esac
"""


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    with running_registry(tmp_path_factory.mktemp("logins") / "registry") as running:
        yield running


class User:
    """A home folder, a store, and the programs that this user has."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.store = folder, folder / "store"
        (folder / "bin").mkdir()
        (folder / "session").mkdir(mode=0o700)
        program = folder / "bin/docker-credential-test"
        program.write_text(PROGRAM)
        program.chmod(0o755)
        self.environ = {
            "HOME": str(folder),
            "PATH": f"{folder}/bin:{os.environ['PATH']}",
            "STORE": str(folder / "secrets"),
            "XDG_CONFIG_HOME": str(folder / ".config"),
            "XDG_RUNTIME_DIR": str(folder / "session"),
            "REGISTRY_AUTH_FILE": "",
        }

    def write(self, path: str, document: Mapping[str, object]) -> Path:
        place = self.folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(document))
        return place

    def argosy(self, *words: str, stdin: bytes = b"", **environ: str) -> str:
        """Standard output of a verb that must succeed."""
        done = argosy(self.store, *words, stdin=stdin, environ={**self.environ, **environ})
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def refusal(self, *words: str, stdin: bytes = b"") -> str:
        done = argosy(self.store, *words, stdin=stdin, environ=self.environ)
        assert done.returncode == 1, done.stdout.decode()
        return done.stderr.decode()

    def run(self, *words: str, stdin: str = "", **environ: str) -> str:
        """Another program of this user's."""
        if shutil.which(words[0]) is None:
            pytest.skip(f"no peer client {words[0]}")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DOCKER_", "XDG_"))}
        done = subprocess.run(
            words, input=stdin, text=True, capture_output=True, env={**kept, **self.environ, **environ}, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def docker_name(self, address: str, config: Path) -> str:
        """What docker finds in a config.json: it says so before it asks its daemon, which is not there."""
        if shutil.which("docker") is None:
            pytest.skip("no peer client docker")
        environ = {**self.environ, "DOCKER_CONFIG": str(config.parent), "DOCKER_HOST": "unix:///absent"}
        done = subprocess.run(["docker", "login", address], env=environ, capture_output=True, text=True, check=False)
        return done.stderr.partition("Username: ")[2].partition("]")[0]

    def push(self, image: RandomImage, name: str) -> None:
        load_image(self.store, image, name)
        self.argosy("push", "-q", name)


@pytest.fixture
def user(tmp_path: Path) -> User:
    return User(tmp_path)


@contextmanager
def bearer(upstream: str) -> Iterator[str]:
    with guarded(upstream, users={USER: PASSWORD}) as door:
        yield door.address


@pytest.mark.parametrize("program", LOGINS)
@pytest.mark.parametrize("kind", ["basic", "bearer"])
def test_a_login_of_another_program_is_found(user: User, registry: RunningRegistry, program: str, kind: str) -> None:
    image = random_image(user.folder / "image")
    door = docker_registry(user.folder / "registry", login=True) if kind == "basic" else bearer(registry.address)
    with door as address:
        assert "[login-required]" in user.refusal("pull", f"{address}/team/{program}:1")
        user.run(*LOGINS[program], "-u", USER, "--password-stdin", address, stdin=PASSWORD)
        user.push(image, f"{address}/team/{program}:1")
        assert f"[{user.folder}/" in user.argosy("login", address)  # «Authenticating with existing credentials…»
        left = argosy(user.store, "logout", address, environ=user.environ)
        assert b"the program that wrote it removes it" in left.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to hide /run of the machine")
@pytest.mark.parametrize("program", ["podman", "skopeo"])
def test_roots_login_without_a_session_is_found(user: User, program: str) -> None:
    """Root has no XDG_RUNTIME_DIR as a rule; then those programs write /run/containers/0/auth.json."""
    if shutil.which(program) is None:
        pytest.skip(f"no peer client {program}")
    environ = environment(user.store, user.environ)
    del environ["XDG_RUNTIME_DIR"]
    with docker_registry(user.folder / "registry", login=True) as address:
        theirs = " ".join(LOGINS[program])
        script = f'mount -t tmpfs none /run && {theirs} -u {USER} -p {PASSWORD} {address} >&2 && exec "$@"'
        words = ["unshare", "--mount", "sh", "-c", script, "sh", *command("login", address)]
        done = subprocess.run(words, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "[/run/containers/0/auth.json]" in done.stdout


@pytest.mark.parametrize("kind", ["basic", "bearer"])
def test_our_login_is_found_by_the_others(user: User, registry: RunningRegistry, kind: str) -> None:
    """The file has their form: REGISTRY_AUTH_FILE names it for podman and skopeo, a link for docker."""
    image = random_image(user.folder / "image")
    door = docker_registry(user.folder / "registry", login=True) if kind == "basic" else bearer(registry.address)
    with door as address:
        user.argosy("login", "-u", USER, "--password-stdin", address, stdin=PASSWORD.encode() + b"\n")
        user.push(image, f"{address}/team/shared:1")
        ours = user.folder / ".config/argosy/auth.json"
        remote = f"docker://{address}/team/shared:1"
        shown = user.run("skopeo", "inspect", "--tls-verify=false", remote, REGISTRY_AUTH_FILE=str(ours))
        assert json.loads(shown)["Digest"] == image.descriptor.digest
        (user.folder / "docker").mkdir()
        (user.folder / "docker/config.json").symlink_to(ours)
        assert user.docker_name(address, user.folder / "docker/config.json") == USER


@pytest.mark.parametrize("user_name", [USER, "$oauthtoken"])
def test_passwords_from_standard_input_are_taken_as_they_are(
    user: User, registry: RunningRegistry, user_name: str
) -> None:
    secret = "käse:with spaces\t= "
    with guarded(registry.address, users={user_name: secret}) as door:
        words = ("login", "-u", user_name, "--password-stdin", door.address)
        for line_end in (b"", b"\n", b"\r\n"):
            assert user.argosy(*words, stdin=secret.encode() + line_end) == "Login Succeeded\n"
        assert "[login-refused]" in user.refusal(*words, stdin=secret.strip().encode())
        assert "[usage]" in user.refusal("login", "--password-stdin", door.address, stdin=secret.encode())
        assert "[login-empty]" in user.refusal(*words, stdin=b"\n")
        asked = [seen.headers.get("authorization") for seen in door.token_requests]
        assert asked[0] == "Basic " + base64.b64encode(f"{user_name}:{secret}".encode()).decode()


@pytest.mark.parametrize("key", ["credsStore", "credHelpers"])
def test_a_password_that_docker_gave_to_a_program_is_asked_for_there(user: User, key: str) -> None:
    with docker_registry(user.folder / "registry", login=True) as address:
        config = user.write(".docker/config.json", {key: "test" if key == "credsStore" else {address: "test"}})
        user.run("docker", "login", "-u", USER, "--password-stdin", address, stdin=PASSWORD)
        assert PASSWORD not in config.read_text()
        assert "[docker-credential-test]" in user.argosy("login", address)


def test_a_password_that_podman_gave_to_a_program_for_all_is_asked_for_there(user: User) -> None:
    with docker_registry(user.folder / "registry", login=True) as address:
        conf = user.folder / ".config/containers/registries.conf"
        conf.parent.mkdir(parents=True)
        conf.write_text('credential-helpers = ["containers-auth.json", "test"]\n')
        (user.folder / "secrets").mkdir()
        answer = {"ServerURL": address, "Username": USER, "Secret": PASSWORD}
        (user.folder / "secrets" / address).write_text(json.dumps(answer))
        assert user.run("skopeo", "login", "--get-login", address).strip() == USER
        assert "[docker-credential-test]" in user.argosy("login", address)


def test_our_password_goes_to_the_program_that_the_file_names(user: User) -> None:
    with docker_registry(user.folder / "registry", login=True) as address:
        config = user.write("docker/config.json", {"credsStore": "test"})
        environ = {"REGISTRY_AUTH_FILE": str(config), "DOCKER_CONFIG": str(config.parent)}
        words = ("login", "-u", USER, "--password-stdin", address)
        assert user.argosy(*words, stdin=PASSWORD.encode(), **environ) == "Login Succeeded\n"
        assert PASSWORD not in config.read_text()
        assert user.docker_name(address, config) == USER
        user.argosy("logout", address, **environ)
        assert list((user.folder / "secrets").iterdir()) == []


def test_an_identity_token_is_exchanged(user: User, registry: RunningRegistry) -> None:
    """What `docker login` keeps for registries that give one out (Azure's do)."""
    with guarded(registry.address, users={USER: PASSWORD}) as door:
        door.identity_tokens.add("identity")
        auth = base64.b64encode(b"00000000-0000-0000-0000-000000000000:").decode()
        user.write(".docker/config.json", {"auths": {door.address: {"auth": auth, "identitytoken": "identity"}}})
        user.push(random_image(user.folder / "image"), f"{door.address}/team/identity:1")
        exchange = door.token_requests[0]
        assert (exchange.method, b"refresh_token=identity" in exchange.body) == ("POST", True)
        door.identity_tokens.clear()
        door.uses = 0
        assert "it was the identity token of " in user.refusal("pull", f"{door.address}/team/identity:1")


class Ngc:
    """nvcr.io as nvidia's documents and users' reports describe it, the storage beside it."""

    KEY = "nvapi-0123456789"

    def __init__(self, registry: RunningRegistry, *, public: bool) -> None:
        self._registry = registry
        self._public = public
        self._tokens = 0
        #: an anonymous token server sometimes refuses for no reason
        self.hiccups = 1

    def front(self, seen: Seen) -> Reply:
        if seen.path == "/proxy_auth":
            return self._token(seen)
        if seen.headers.get("authorization") != f"Bearer token{self._tokens}" or not self._tokens:
            realm = "https://nvcr.io/proxy_auth?scope=repository:nvidia/cuda:pull,push"
            return Reply(status=401, headers={"WWW-Authenticate": f'Bearer realm="{realm}"'})
        if "/blobs/" in seen.path:
            signed = f"https://xfiles.ngc.nvidia.com{seen.path}?Expires=1&Signature=secret"
            return Reply(status=307, headers={"Location": signed})
        bare = {name: value for name, value in seen.headers.items() if name not in ("authorization", "host")}
        return forward(self._registry.address, Seen(method=seen.method, target=seen.target, headers=bare, body=b""))

    def _token(self, seen: Seen) -> Reply:
        login = seen.headers.get("authorization", "")
        if login not in ("", "Basic " + base64.b64encode(f"$oauthtoken:{self.KEY}".encode()).decode()):
            return Reply(status=401)
        if not login and (not self._public or self.hiccups):
            self.hiccups -= 1
            return Reply(status=401)
        self._tokens += 1
        return Reply(body=json.dumps({"token": f"token{self._tokens}", "expires_in": 600}).encode())

    def storage(self, seen: Seen) -> Reply:
        if "authorization" in seen.headers or "cookie" in seen.headers:
            return Reply(status=400, body=b"<Error>Only one auth mechanism allowed</Error>")
        bare = {name: value for name, value in seen.headers.items() if name != "host"}
        return forward(self._registry.address, Seen(method=seen.method, target=seen.path, headers=bare, body=b""))


@pytest.mark.parametrize("public", [True, False])
def test_nvcr_io(user: User, registry: RunningRegistry, public: bool) -> None:
    """Its realm has a query inside, its user is $oauthtoken, its blobs lie elsewhere; by TLS, through a proxy."""
    registry.push(random_image(user.folder / "image"), "nvidia/cuda", "13")
    ngc, lab = Ngc(registry, public=public), Authority(user.folder / "lab")
    with (
        serving(ngc.front, tls=lab.server("nvcr.io")) as front,
        serving(ngc.storage, tls=lab.server("xfiles.ngc.nvidia.com")) as storage,
        proxying({"nvcr.io:443": front.address, "xfiles.ngc.nvidia.com:443": storage.address}) as proxy,
    ):
        user.environ |= {"https_proxy": proxy.url, "no_proxy": "", "SSL_CERT_FILE": str(lab.ca_file)}
        if not public:
            assert "hint: argosy login nvcr.io" in user.refusal("pull", "nvcr.io/nvidia/cuda:13")
            words = ("login", "nvcr.io", "-u", "$oauthtoken", "--password-stdin")
            assert "[login-refused]" in user.refusal(*words, stdin=b"nvapi-wrong")
            assert user.argosy(*words, stdin=ngc.KEY.encode() + b"\n") == "Login Succeeded\n"
        assert user.argosy("pull", "-q", "nvcr.io/nvidia/cuda:13") == "nvcr.io/nvidia/cuda:13\n"
        tokens = [seen.target for seen in front.seen if seen.path == "/proxy_auth"]
        assert tokens[0].startswith("/proxy_auth?scope=repository:nvidia/cuda:pull,push")
        assert not any("?" in target.partition("?")[2] for target in tokens)
        assert storage.seen
        assert all("authorization" not in seen.headers for seen in storage.seen)
