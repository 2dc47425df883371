"""Where credentials are found and kept: files of Docker's form, and real credential programs."""

from __future__ import annotations

import base64
import json
import stat
from typing import TYPE_CHECKING

import pytest

from argosy.errors import InvalidInput, RuntimeFailed
from argosy.remote.credentials import Credential, Credentials

if TYPE_CHECKING:
    from pathlib import Path

#: Speaks the protocol of docker-credential-helpers; its secrets lie in a folder, a file a server.
PROGRAM = """#!/bin/sh
read -r sent; file="$STORE/$(printf %s "$sent" | tr / _)"
case "$1" in
get) if [ -f "$file" ]; then cat "$file"; else echo "credentials not found in native keychain"; exit 1; fi;;
store) printf %s "$sent" > "$STORE/stored";;
erase) rm "$file";;
esac
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "bin").mkdir()
    (tmp_path / "store").mkdir()
    program = tmp_path / "bin/docker-credential-test"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    return tmp_path


def credentials(home: Path, helpers: tuple[str, ...] = (), **environ: str) -> Credentials:
    path = f"{home}/bin:/usr/bin:/bin"
    known = {"HOME": str(home), "PATH": path, "STORE": str(home / "store"), **environ}
    return Credentials(known, uid=7, run=str(home / "run"), helpers=lambda: helpers)


def entry(pair: str, **more: str) -> dict[str, str]:
    return {"auth": base64.b64encode(pair.encode()).decode(), **more}


def write(path: Path, **document: object) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return str(path)


def test_nothing_is_anonymous(home: Path) -> None:
    assert credentials(home).find("nvcr.io") is None


def test_what_is_saved_is_found_again_and_readable_by_its_owner_only(home: Path) -> None:
    ours = credentials(home)
    place = ours.save("nvcr.io", Credential(username="$oauthtoken", password="k:e y"))
    assert place == f"{home}/.config/argosy/auth.json"
    assert ours.find("nvcr.io") == Credential(username="$oauthtoken", password="k:e y", source=place)
    assert stat.S_IMODE(ours.own_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(ours.own_file.parent.stat().st_mode) == 0o700
    assert json.loads(ours.own_file.read_text()) == {"auths": {"nvcr.io": entry("$oauthtoken:k:e y")}}


def test_what_is_deleted_is_forgotten_and_the_rest_kept(home: Path) -> None:
    ours = credentials(home)
    ours.save("nvcr.io", Credential(username="a", password="b"))
    ours.save("docker.io", Credential(username="c", password="d"))
    assert (ours.delete("docker.io"), ours.delete("docker.io"), ours.delete("quay.io")) == (True, False, False)
    assert json.loads(ours.own_file.read_text()) == {"auths": {"nvcr.io": entry("a:b")}}


@pytest.mark.parametrize(
    ("file", "environ"),
    [
        (".docker/config.json", {}),
        ("elsewhere/config.json", {"DOCKER_CONFIG": "elsewhere"}),
        ("session/containers/auth.json", {"XDG_RUNTIME_DIR": "session"}),
        ("run/user/7/containers/auth.json", {}),
        ("run/containers/7/auth.json", {}),
        (".config/containers/auth.json", {}),
        ("conf/containers/auth.json", {"XDG_CONFIG_HOME": "conf"}),
        ("conf/argosy/auth.json", {"XDG_CONFIG_HOME": "conf"}),
        ("named.json", {"REGISTRY_AUTH_FILE": "named.json"}),
    ],
)
def test_each_known_file_is_read(home: Path, file: str, environ: dict[str, str]) -> None:
    source = write(home / file, auths={"nvcr.io": entry("ann:secret")})
    found = credentials(home, **{name: str(home / value) for name, value in environ.items()}).find("nvcr.io")
    assert found == Credential(username="ann", password="secret", source=source)


@pytest.mark.parametrize(
    ("key", "registry", "repository", "expected"),
    [
        ("https://index.docker.io/v1/", "docker.io", "library/x", True),
        ("docker.io", "docker.io", "library/x", True),
        ("https://nvcr.io", "nvcr.io", "nvidia/x", True),
        ("nvcr.io/nvidia", "nvcr.io", "nvidia/x", True),
        ("nvcr.io/nvidia/x", "nvcr.io", "nvidia/x", True),
        ("nvcr.io/nvid", "nvcr.io", "nvidia/x", False),
        ("nvcr.io/other", "nvcr.io", "nvidia/x", False),
        ("localhost:5000", "localhost:5000", "x", True),
        ("localhost", "localhost:5000", "x", False),
    ],
)
def test_which_keys_serve_a_registry(home: Path, key: str, registry: str, repository: str, expected: bool) -> None:
    write(home / ".docker/config.json", auths={key: entry("ann:secret")})
    assert (credentials(home).find(registry, repository) is not None) is expected


def test_the_narrowest_key_wins(home: Path) -> None:
    write(
        home / ".docker/config.json", auths={"q.io": entry("all:x"), "q.io/a/b": entry("b:x"), "q.io/a": entry("a:x")}
    )
    found = credentials(home).find("q.io", "a/b/c")
    assert found is not None
    assert found.username == "b"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (entry("ann:"), None),
        (entry("no colon"), None),
        ({"auth": "***"}, None),
        ({}, None),
        ({"username": "ann", "password": "pw"}, Credential(username="ann", password="pw")),
        (entry("x:y", identitytoken="t"), Credential(username="x", password="y", identity_token="t")),
    ],
)
def test_forms_of_an_entry(home: Path, fields: dict[str, str], expected: Credential | None) -> None:
    source = write(home / ".docker/config.json", auths={"r.io": fields})
    found = credentials(home).find("r.io")
    if expected is not None:
        expected = Credential(
            username=expected.username,
            password=expected.password,
            identity_token=expected.identity_token,
            source=source,
        )
    assert found == expected


@pytest.mark.parametrize("document", [{"credHelpers": {"r.io": "test"}}, {"credsStore": "test"}])
def test_a_credential_program_is_asked(home: Path, document: dict[str, object]) -> None:
    write(home / ".docker/config.json", **document)
    assert credentials(home).find("r.io") is None
    answer = {"ServerURL": "r.io", "Username": "ann", "Secret": "pw"}
    (home / "store/r.io").write_text(json.dumps(answer))
    assert credentials(home).find("r.io") == Credential(username="ann", password="pw", source="docker-credential-test")


def test_a_program_may_serve_a_part_of_a_registry(home: Path) -> None:
    write(home / ".docker/config.json", credHelpers={"r.io/team": "test"})
    (home / "store/r.io").write_text(json.dumps({"ServerURL": "r.io", "Username": "ann", "Secret": "pw"}))
    assert credentials(home).find("r.io", "team/app") is not None
    assert credentials(home).find("r.io", "other/app") is None


def test_podmans_programs_for_every_registry_are_asked_last(home: Path) -> None:
    (home / "store/r.io").write_text(json.dumps({"ServerURL": "r.io", "Username": "ann", "Secret": "pw"}))
    found = credentials(home, ("absent", "../test", "test")).find("r.io")
    assert found == Credential(username="ann", password="pw", source="docker-credential-test")
    write(home / ".config/containers/auth.json", auths={"r.io": entry("bob:pw")})
    first = credentials(home, ("test",)).find("r.io")
    assert first is not None
    assert first.username == "bob"


def test_a_program_may_give_an_identity_token(home: Path) -> None:
    write(home / ".docker/config.json", credsStore="test")
    (home / "store/r.io").write_text(json.dumps({"ServerURL": "r.io", "Username": "<token>", "Secret": "t"}))
    assert credentials(home).find("r.io") == Credential(identity_token="t", source="docker-credential-test")


def test_a_program_that_is_missing_is_a_problem_to_tell_not_an_error(home: Path) -> None:
    write(home / ".docker/config.json", credsStore="absent", auths={"r.io": {}})
    ours = credentials(home)
    assert ours.find("r.io") is None
    assert ours.problems == ["no program docker-credential-absent: not in PATH"]


def test_a_broken_file_of_another_program_is_a_problem_to_tell(home: Path) -> None:
    (home / ".docker").mkdir()
    (home / ".docker/config.json").write_text("{")
    write(home / ".config/containers/auth.json", auths={"r.io": entry("ann:pw")})
    ours = credentials(home)
    assert ours.find("r.io") is not None
    assert [problem.startswith(f"{home}/.docker/config.json is not JSON: ") for problem in ours.problems] == [True]


def test_our_own_file_is_never_overwritten_when_it_is_broken(home: Path) -> None:
    ours = credentials(home)
    ours.own_file.parent.mkdir(parents=True)
    ours.own_file.write_text("[]")
    with pytest.raises(InvalidInput) as caught:
        ours.save("r.io", Credential(username="a", password="b"))
    assert (caught.value.code, ours.own_file.read_text()) == ("auth-file-invalid", "[]")


def test_our_file_may_name_a_program_that_keeps_the_password(home: Path) -> None:
    ours = credentials(home)
    write(ours.own_file, credsStore="test")
    assert ours.save("docker.io", Credential(username="a", password="b")) == "docker-credential-test"
    assert json.loads((home / "store/stored").read_text()) == {
        "ServerURL": "https://index.docker.io/v1/",
        "Username": "a",
        "Secret": "b",
    }
    assert "auths" not in json.loads(ours.own_file.read_text())
    (home / "store/r.io").write_text(json.dumps({"ServerURL": "r.io", "Username": "a", "Secret": "b"}))
    assert (ours.delete("r.io"), (home / "store/r.io").exists()) == (True, False)


def test_a_program_that_fails_to_store_is_an_error(home: Path) -> None:
    ours = credentials(home)
    write(ours.own_file, credsStore="absent")
    with pytest.raises(RuntimeFailed) as caught:
        ours.save("r.io", Credential(username="a", password="b"))
    assert caught.value.code == "credential-program-missing"


def test_a_credential_does_not_show_its_secrets() -> None:
    shown = repr(Credential(username="ann", password="secret", identity_token="token", source="here"))
    assert shown == "Credential(username='ann', source='here')"
