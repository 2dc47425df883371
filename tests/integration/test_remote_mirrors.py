"""A repository that is had in several places: who is asked when, with which login, and what if one fails."""

from __future__ import annotations

import base64
import io
import json
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from argosy.errors import Corrupt, Error, NotFound, Unauthorized, Unavailable
from argosy.oci.descriptor import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Descriptor
from argosy.oci.digest import Digest
from argosy.oci.manifest import encode_manifest
from argosy.oci.reference import Reference
from argosy.remote.credentials import Credentials
from argosy.remote.mirrors import connect
from argosy.remote.registries import Folders, Registries
from argosy.remote.repository import Repository
from argosy.remote.transport import RetryPolicy, Transport
from support.web import Reply, Seen, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.web import Site

CONFIG = b'{"architecture":"amd64","os":"linux"}'
LAYER = bytes(range(256)) * 20_000  # too large to be verified before it is given
LARGE, SMALL = Descriptor.of(LAYER, OCI_LAYER), Descriptor.of(CONFIG, OCI_CONFIG)
MANIFEST = encode_manifest(SMALL, (LARGE,))
DOCUMENT = replace(MANIFEST.descriptor, media_type=OCI_MANIFEST)


class Place:
    """A registry of one image; *change* spoils its answers, *login* is what it asks everybody for."""

    def __init__(self) -> None:
        self.change: Callable[[Seen, Reply], Reply] = lambda seen, reply: reply
        self.login = ""
        self.site: Site

    def answer(self, seen: Seen) -> Reply:
        expected = "Basic " + base64.b64encode(self.login.encode()).decode()
        if self.login and seen.headers.get("authorization") != expected:
            return Reply(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        return self.change(seen, self._honest(seen))

    def _honest(self, seen: Seen) -> Reply:
        last = seen.path.rpartition("/")[2]
        if seen.path == "/v2/":
            return Reply()
        if "/manifests/" in seen.path and last in ("1", MANIFEST.descriptor.digest):
            return Reply(headers={"Content-Type": OCI_MANIFEST}, body=MANIFEST.raw)
        if seen.path.endswith("/tags/list"):
            return Reply(body=json.dumps({"tags": ["1", "2"]}).encode())
        content = {LARGE.digest: LAYER, SMALL.digest: CONFIG}.get(Digest(last))
        if content is None or seen.method != "GET":
            return Reply(status=202 if seen.method == "POST" else 404, headers={"Location": "/up"})
        start = int(seen.headers["range"].removeprefix("bytes=").partition("-")[0]) if "range" in seen.headers else 0
        extent = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        return Reply(status=206 if start else 200, headers=extent if start else {}, body=content[start:])

    @property
    def asked(self) -> list[str]:
        """What was wanted of it: «manifests/1», «blobs», …"""
        paths = [seen.path.removeprefix("/v2/") for seen in self.site.seen if seen.path != "/v2/"]
        return [
            "blobs"
            if "/blobs/" in path
            else "/".join(path.split("/")[-2:]).replace(MANIFEST.descriptor.digest, "DIGEST")
            for path in paths
        ]


class Net:
    """A mirror, an origin, and this user's configuration."""

    def __init__(self, folder: Path, mirror: Place, origin: Place) -> None:
        self.folder, self.mirror, self.origin = folder, mirror, origin
        self.pauses: list[float] = []
        self.lines: list[str] = []
        self.transport = Transport(
            {}, sleep=self.pauses.append, debug=self.lines.append, retries=RetryPolicy(attempts=4), read_timeout_s=0.5
        )
        self.name = f"{origin.site.address}/team/app"

    def say(self, text: str = "", mirror: str = "", **keys: object) -> None:
        """registries.toml: the mirror before the origin, with *keys* on the mirror and *text* on the registry."""
        lines = [f'[[registry]]\nlocation = "{self.origin.site.address}"\n{text}\n[[registry.mirror]]']
        lines += [f'location = "{mirror or self.mirror.site.address}/hub"']
        lines += [f"{key.replace('_', '-')} = {json.dumps(value)}" for key, value in keys.items()]
        path = self.folder / "argosy/registries.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines))

    def repository(self, *, for_writing: bool = False) -> Repository:
        registries = Registries(Folders(user=str(self.folder), system=str(self.folder / "etc")))
        return connect(
            self.reference(),
            transport=self.transport,
            credentials=Credentials({"HOME": str(self.folder)}),
            registries=registries,
            for_writing=for_writing,
        )

    def reference(self, *, by_digest: bool = False) -> Reference:
        reference = Reference.parse(f"{self.name}:1")
        return reference.with_digest(MANIFEST.descriptor.digest) if by_digest else reference

    @property
    def away(self) -> str:
        """An address where nobody listens."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            return f"127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    mirror, origin = Place(), Place()
    with ExitStack() as stack:
        for place in (mirror, origin):
            place.site = stack.enter_context(serving(place.answer))
        made = Net(tmp_path, mirror, origin)
        stack.callback(made.transport.close)
        yield made


def content(repository: Repository, descriptor: Descriptor = LARGE) -> bytes:
    with repository.open(descriptor) as stream:
        return stream.read()


def failing(status: int, **headers: str) -> Callable[[Seen, Reply], Reply]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda seen, reply: Reply(status=status, headers=named)


def on_blobs(change: Callable[[Reply], Reply]) -> Callable[[Seen, Reply], Reply]:
    return lambda seen, reply: change(reply) if "/blobs/" in seen.path else reply


def damaged(reply: Reply) -> Reply:
    return replace(reply, body=reply.body[:-1] + bytes([reply.body[-1] ^ 1])) if reply.body else reply


def test_a_mirror_is_asked_first_and_the_origin_not_at_all(net: Net) -> None:
    net.say()
    repository = net.repository()
    assert repository.resolve(net.reference()).digest == MANIFEST.descriptor.digest
    assert (content(repository), content(repository, SMALL)) == (LAYER, CONFIG)
    assert (net.mirror.asked, net.origin.asked) == (["manifests/1", "blobs", "blobs"], [])
    assert [seen.path for seen in net.mirror.site.seen][1] == "/v2/hub/team/app/manifests/1"
    assert repository.source == f"{net.mirror.site.address}/hub/team/app"
    assert f"* {net.name}:1 comes from {repository.source}" in net.lines


def test_without_a_word_it_is_a_plain_repository(net: Net) -> None:
    repository = net.repository()
    assert (type(repository), repository.source, repository.distrust(LARGE)) == (Repository, net.name, False)


@pytest.mark.parametrize("keys", [{"pull_from_mirror": "digest-only"}, {}])
def test_a_mirror_for_digests_is_not_asked_for_a_tag(net: Net, keys: dict[str, object]) -> None:
    net.say("" if keys else "mirror-by-digest-only = true", **keys)
    repository = net.repository()
    repository.resolve(net.reference())
    assert content(repository) == LAYER
    assert (net.mirror.site.seen, net.origin.asked) == ([], ["manifests/1", "blobs"])
    repository = net.repository()
    repository.resolve(net.reference(by_digest=True))
    assert content(repository) == LAYER
    assert net.mirror.asked == ["manifests/DIGEST", "blobs"]


def test_a_mirror_for_tags_is_not_asked_for_a_digest(net: Net) -> None:
    net.say(pull_from_mirror="tag-only")
    repository = net.repository()
    repository.resolve(net.reference(by_digest=True))
    assert content(repository) == LAYER
    assert (net.mirror.site.seen, repository.source) == ([], net.name)
    repository = net.repository()
    repository.resolve(net.reference())
    assert (content(repository), net.mirror.asked) == (LAYER, ["manifests/1", "blobs"])


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        (failing(404), "no manifest 1 in MIRROR"),
        (failing(401, WWW_Authenticate='Basic realm="x"'), "MIRROR: access refused without a login"),
        (failing(403), "cannot read the manifest of MIRROR:1"),
        (failing(500), "cannot read the manifest of MIRROR:1"),
        (failing(429, Retry_After="9"), "cannot read the manifest of MIRROR:1"),
        (failing(302, Location="ftp://elsewhere.test/"), "cannot read the manifest of MIRROR:1"),
        (lambda seen, reply: replace(reply, body=b"<html>"), "MIRROR:1 is not an image"),
        (lambda seen, reply: replace(reply, cut=3), "HOST: the connection broke"),
        (lambda seen, reply: replace(reply, stall=3), "HOST: no answer in time"),
    ],
)
def test_a_mirror_that_fails_is_passed_over(net: Net, change: Callable[[Seen, Reply], Reply], refusal: str) -> None:
    net.say()
    net.mirror.change = lambda seen, reply: reply if seen.path == "/v2/" else change(seen, reply)
    repository = net.repository()
    assert repository.resolve(net.reference()).digest == MANIFEST.descriptor.digest
    assert (content(repository), repository.source) == (LAYER, net.name)
    assert "blobs" not in net.mirror.asked  # from where the manifest came
    named = refusal.replace("MIRROR", f"{net.mirror.site.address}/hub/team/app").replace(
        "HOST", net.mirror.site.address
    )
    assert any(line.startswith(f"* not from {net.mirror.site.address}/hub/team/app: {named}") for line in net.lines)


def test_a_mirror_that_is_away_costs_little_patience(net: Net) -> None:
    net.say(mirror=net.away)
    assert net.repository().resolve(net.reference()).digest == MANIFEST.descriptor.digest
    assert net.pauses == [0.25]


def test_when_all_fail_the_origins_error_tells_of_the_mirrors(net: Net) -> None:
    net.say()
    net.mirror.change = failing(403)
    reference = Reference.parse(f"{net.name}:absent")
    with pytest.raises(NotFound) as caught:
        net.repository().resolve(reference)
    mirror = f"{net.mirror.site.address}/hub/team/app"
    assert (caught.value.code, caught.value.message) == ("tag-unknown", f"{net.name}:absent: no such tag")
    assert caught.value.context == (
        f"{net.name} has 1, 2\n{mirror} was asked before: cannot read the manifest of {mirror}:absent"
    )


def test_a_digest_that_a_mirror_belies_is_taken_from_the_origin(net: Net) -> None:
    net.say()
    net.mirror.change = lambda seen, reply: replace(reply, body=reply.body + b" ")
    repository = net.repository()
    assert repository.resolve(net.reference(by_digest=True)).digest == MANIFEST.descriptor.digest
    assert repository.source == net.name


@pytest.mark.parametrize("change", [failing(404), failing(403), failing(500), failing(401)])
def test_a_blob_that_the_mirror_does_not_give_comes_from_the_origin(
    net: Net, change: Callable[[Seen, Reply], Reply]
) -> None:
    net.say()
    net.mirror.change = lambda seen, reply: change(seen, reply) if "/blobs/" in seen.path else reply
    repository = net.repository()
    repository.resolve(net.reference())
    assert content(repository) == LAYER
    assert (repository.source, net.origin.asked) == (f"{net.mirror.site.address}/hub/team/app", ["blobs"])


def test_a_blob_that_breaks_off_for_good_goes_on_at_the_origin(net: Net) -> None:
    net.say()

    def change(seen: Seen, reply: Reply) -> Reply:
        if "/blobs/" not in seen.path:
            return reply
        return replace(reply, cut=0 if "range" in seen.headers else 1_000_000)

    net.mirror.change = change
    repository = net.repository()
    repository.resolve(net.reference())
    assert content(repository) == LAYER
    ranges = [seen.headers.get("range") for seen in net.origin.site.seen if "/blobs/" in seen.path]
    assert [text is not None and text.startswith("bytes=") for text in ranges] == [True]  # not from the start


def test_a_blob_that_breaks_off_once_goes_on_at_the_mirror(net: Net) -> None:
    net.say()
    cuts = [1_000_000]
    net.mirror.change = on_blobs(lambda reply: replace(reply, cut=cuts.pop()) if cuts else reply)
    repository = net.repository()
    repository.resolve(net.reference())
    assert (content(repository), net.origin.asked) == (LAYER, [])


def test_a_mirror_that_did_not_answer_is_asked_last_for_the_next_blob(net: Net) -> None:
    net.say()
    net.mirror.change = on_blobs(lambda reply: Reply(status=500))
    repository = net.repository()
    repository.resolve(net.reference())
    content(repository)
    asked = len(net.mirror.asked)
    content(repository, SMALL)
    assert (len(net.mirror.asked), net.origin.asked) == (asked, ["blobs", "blobs"])


def test_a_small_document_that_is_damaged_is_taken_from_the_next_before_it_is_given(net: Net) -> None:
    net.say()
    repository = net.repository()
    repository.resolve(net.reference())
    net.mirror.change = lambda seen, reply: damaged(reply)
    assert (content(repository, SMALL), content(repository, DOCUMENT)) == (CONFIG, MANIFEST.raw)
    assert net.origin.asked == ["blobs", "manifests/DIGEST"]
    net.origin.change = lambda seen, reply: damaged(reply)
    with pytest.raises(Corrupt) as caught:
        content(net.repository(), SMALL)
    assert caught.value.code == "digest-mismatch"


def test_whoever_finds_a_large_blob_damaged_gets_it_from_elsewhere(net: Net) -> None:
    net.say()
    net.mirror.change = on_blobs(damaged)
    repository = net.repository()
    repository.resolve(net.reference())
    with pytest.raises(Corrupt), repository.open(LARGE) as stream:
        stream.read()
    assert repository.distrust(LARGE) is True
    assert content(repository) == LAYER
    assert f"* {net.mirror.site.address}/hub/team/app sent something else as {LARGE.digest}" in net.lines
    net.origin.change = on_blobs(damaged)
    with pytest.raises(Corrupt):
        content(repository)
    assert repository.distrust(LARGE) is False
    net.origin.change = lambda seen, reply: reply
    net.mirror.change = failing(404)
    assert content(repository) == LAYER  # whoever tries again may


def test_a_blob_of_another_size_is_no_reason_to_try_again_until_it_is_said(net: Net) -> None:
    net.say()
    net.mirror.change = on_blobs(lambda reply: replace(reply, body=reply.body[:-1]))
    repository = net.repository()
    repository.resolve(net.reference())
    with pytest.raises(Corrupt) as caught:
        content(repository)
    assert (caught.value.code, repository.distrust(LARGE), content(repository)) == ("size-mismatch", True, LAYER)


def test_each_place_sees_its_own_login_alone(net: Net) -> None:
    net.say()
    net.mirror.login, net.origin.login = "mia:mirror", "ann:origin"
    net.mirror.change = on_blobs(lambda reply: Reply(status=404))
    auths = {
        net.mirror.site.address: {"auth": base64.b64encode(b"mia:mirror").decode()},
        net.origin.site.address: {"auth": base64.b64encode(b"ann:origin").decode()},
    }
    path = net.folder / ".docker/config.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"auths": auths}))
    repository = net.repository()
    repository.resolve(net.reference())
    assert content(repository) == LAYER
    sent = [
        {base64.b64decode(value.removeprefix("Basic ")) for seen in place.site.seen if (value := _login(seen))}
        for place in (net.mirror, net.origin)
    ]
    assert sent == [{b"mia:mirror"}, {b"ann:origin"}]


def _login(seen: Seen) -> str:
    return seen.headers.get("authorization", "")


def test_a_mirror_without_a_login_of_its_own_is_asked_anonymously(net: Net) -> None:
    net.say()
    net.mirror.login, net.origin.login = "mia:mirror", "ann:origin"
    path = net.folder / ".docker/config.json"
    path.parent.mkdir()
    auth = {"auth": base64.b64encode(b"ann:origin").decode()}
    path.write_text(json.dumps({"auths": {net.origin.site.address: auth}}))
    repository = net.repository()
    repository.resolve(net.reference())
    assert repository.source == net.name
    assert [_login(seen) for seen in net.mirror.site.seen] == ["", ""]


def test_what_is_pushed_goes_to_the_origin_alone(net: Net) -> None:
    net.say()
    net.origin.change = lambda seen, reply: Reply(status=201) if seen.method == "PUT" else reply
    repository = net.repository()
    other = Descriptor.of(b"new", OCI_LAYER)
    assert repository.push_blob(other, lambda offset: io.BytesIO(b"new"[offset:])).how == "sent"
    repository.push_manifest(MANIFEST.raw, OCI_MANIFEST, "1")
    assert repository.has_manifest(other.digest) is False
    assert net.mirror.site.seen == []


def test_whoever_writes_reads_from_the_origin_too(net: Net) -> None:
    """What is changed must be what is there, not what a mirror remembers."""
    net.say()
    net.mirror.change = failing(500)
    repository = net.repository(for_writing=True)
    repository.resolve(net.reference())
    assert (content(repository), list(repository.tags()), net.mirror.site.seen) == (LAYER, ["1", "2"], [])


def test_a_rewritten_registry_is_read_elsewhere_and_written_under_its_own_name(net: Net) -> None:
    path = net.folder / "argosy/registries.toml"
    path.parent.mkdir(parents=True)
    address = net.mirror.site.address
    path.write_text(f'[[registry]]\nprefix = "{net.origin.site.address}/team"\nlocation = "{address}/moved"')
    repository = net.repository()
    repository.resolve(net.reference())
    assert repository.source == f"{address}/moved/app"
    assert list(repository.tags()) == ["1", "2"]
    assert net.origin.site.seen == []
    repository.has_manifest(MANIFEST.descriptor.digest)
    assert net.origin.site.lines[-1].startswith("HEAD /v2/team/app/manifests/")


def test_tags_are_those_of_the_origin_while_it_answers(net: Net) -> None:
    net.say()
    net.mirror.change = lambda seen, reply: Reply(body=b'{"tags":["old"]}') if "tags" in seen.path else reply
    assert list(net.repository().tags()) == ["1", "2"]
    net.origin.change = failing(503)
    assert list(net.repository().tags()) == ["old"]
    net.mirror.change = failing(503)
    with pytest.raises(Unavailable):
        list(net.repository().tags())
    net.origin.change = failing(404)
    with pytest.raises(NotFound):
        list(net.repository().tags())


def test_containerds_mirrors_are_asked_as_it_would(net: Net) -> None:
    registry = net.origin.site.address
    folder = net.folder / f"etc/containerd/certs.d/{registry}"
    folder.mkdir(parents=True)
    hosts = f'[host."{net.mirror.site.url}/cache"]\ncapabilities = ["pull"]\n'
    (folder / "hosts.toml").write_text(hosts)
    repository = net.repository()
    repository.resolve(net.reference())
    assert (content(repository), repository.source) == (LAYER, net.name)
    assert net.origin.asked == ["manifests/1"]
    assert [seen.target for seen in net.mirror.site.seen] == [
        f"/cache/v2/team/app/blobs/{LARGE.digest}?ns={registry.replace(':', '%3A')}"
    ]


def test_a_blocked_name_is_asked_for_nowhere(net: Net) -> None:
    net.say("blocked = true")
    with pytest.raises(Unauthorized) as caught:
        net.repository()
    assert (caught.value.code, net.mirror.site.seen, net.origin.site.seen) == ("registry-blocked", [], [])


def test_every_error_of_the_last_place_is_its_own(net: Net) -> None:
    net.say()
    net.mirror.change = net.origin.change = on_blobs(lambda reply: Reply(status=404))
    repository = net.repository()
    repository.resolve(net.reference())
    with pytest.raises(Error) as caught:
        content(repository)
    assert (type(caught.value), caught.value.code) == (NotFound, "blob-unknown")
    assert caught.value.context.splitlines()[-1] == (
        f"{net.mirror.site.address}/hub/team/app was asked before: "
        f"blob {LARGE.digest} is not in {net.mirror.site.address}/hub/team/app"
    )
