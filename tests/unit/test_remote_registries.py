"""What files say about registries: ours, podman's, containerd's and Docker's, on a machine that is a folder."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from argosy.errors import InvalidInput, Unauthorized
from argosy.oci.reference import Reference
from argosy.remote.hosts import Certificates, HostSettings, find_certificates
from argosy.remote.registries import Endpoint, Folders, Registries, Rule
from argosy.remote.registries_conf import matched

if TYPE_CHECKING:
    from pathlib import Path


class Machine:
    """A folder with the files that are written into it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, path: str, text: str) -> str:
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        return str(place)

    def registries(self, **more: str) -> Registries:
        user, system, docker = (str(self.root / name) for name in ("user", "etc", "docker"))
        return Registries(Folders(user=user, system=system, docker=docker, **more))

    def places(self, name: str) -> list[str]:
        """The names under which an image is looked for, in this order."""
        reference = Reference.parse(name)
        rule = self.registries().rule(str(reference))
        if rule is None:
            return [str(reference)]
        return [str(rule.rewritten(reference, endpoint)) for endpoint in (*rule.mirrors, rule.origin)]

    def error(self, name: str = "docker.io") -> InvalidInput:
        with pytest.raises(InvalidInput) as caught:
            self.registries().rule(name)
        return caught.value


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


MIRROR = """
[[registry]]
prefix = "docker.io"
[[registry.mirror]]
location = "mirror.lan:5000/hub/"
"""


def test_nothing_said_is_no_rule_and_no_file_read(machine: Machine) -> None:
    registries = machine.registries()
    assert (registries.rule("docker.io/library/debian:12"), registries.files) == (None, [])
    assert registries.settings("registry.test") == HostSettings()


@pytest.mark.parametrize(
    "path",
    [
        "user/argosy/registries.toml",
        "etc/argosy/registries.toml",
        "user/containers/registries.conf",
        "etc/containers/registries.conf",
        "etc/containers/registries.conf.d/mirrors.conf",
        "user/containers/registries.conf.d/mirrors.conf",
    ],
)
def test_each_file_of_the_form_is_read(machine: Machine, path: str) -> None:
    file = machine.write(path, MIRROR)
    registries = machine.registries()
    mirror = Endpoint(location="mirror.lan:5000/hub", scheme="https")
    origin = Endpoint(location="docker.io", scheme="https")
    assert registries.rule("docker.io/library/debian:12") == Rule(
        prefix="docker.io", mirrors=(mirror,), origin=origin, file=file
    )
    assert registries.files == [file]
    assert machine.places("debian:12") == ["mirror.lan:5000/hub/library/debian:12", "docker.io/library/debian:12"]


def test_what_our_file_speaks_of_is_not_looked_up_elsewhere(machine: Machine) -> None:
    ours = machine.write("user/argosy/registries.toml", MIRROR)
    machine.write("etc/containers/registries.conf", "[[registry]]\nlocation = 3")
    registries = machine.registries()
    assert registries.rule("docker.io/library/debian:12") is not None
    assert registries.files == [ours]
    with pytest.raises(InvalidInput):
        registries.rule("quay.io/other:1")


def test_the_users_entry_replaces_the_systems_of_the_same_prefix(machine: Machine) -> None:
    machine.write("user/argosy/registries.toml", MIRROR)
    machine.write(
        "etc/argosy/registries.toml",
        '[[registry]]\nlocation = "docker.io"\nblocked = true\n'
        '[[registry]]\nlocation = "docker.io/lab"\nblocked = true',
    )
    rules = machine.registries()
    assert [getattr(rules.rule(name), "blocked", None) for name in ("docker.io/a/b:1", "docker.io/lab/b:1")] == [
        False,
        True,
    ]


def test_a_users_own_podman_file_hides_the_systems_with_its_folder(machine: Machine) -> None:
    machine.write("etc/containers/registries.conf", '[[registry]]\nlocation = "a.lan"')
    machine.write("etc/containers/registries.conf.d/b.conf", '[[registry]]\nlocation = "b.lan"')
    machine.write("user/containers/registries.conf.d/c.conf", '[[registry]]\nlocation = "c.lan"')
    names = ("a.lan", "b.lan", "c.lan")
    assert [machine.registries().rule(name) is not None for name in names] == [True, True, True]
    machine.write("user/containers/registries.conf", "")
    assert [machine.registries().rule(name) is not None for name in names] == [False, False, True]
    named = machine.write("named.conf", '[[registry]]\nlocation = "d.lan"')
    chosen = machine.registries(containers_file=named)
    assert [chosen.rule(name) is not None for name in (*names, "d.lan")] == [False, False, False, True]


def test_the_later_file_of_a_folder_wins_and_others_are_not_read(machine: Machine) -> None:
    folder = "etc/containers/registries.conf.d"
    machine.write(f"{folder}/10.conf", '[[registry]]\nlocation = "a.lan"\ninsecure = true')
    machine.write(f"{folder}/20.conf", '[[registry]]\nlocation = "a.lan"\n[[registry]]\nlocation = "b.lan"')
    machine.write(f"{folder}/30.txt", "rubbish")
    registries = machine.registries()
    assert [rule.origin.insecure for name in ("a.lan", "b.lan") if (rule := registries.rule(name))] == [False, False]


@pytest.mark.parametrize(
    ("name", "prefix", "length"),
    [
        ("docker.io/library/debian:12", "docker.io", 9),
        ("docker.io/library/debian:12", "docker.io/library", 17),
        ("docker.io/library/debian:12", "docker.io/library/debian", 24),
        ("docker.io/library/debian:12", "docker.io/library/debian:12", 27),
        ("docker.io/library/debian:12", "docker.io/library/debian:1", 0),
        ("docker.io/library/debian@sha256:0", "docker.io/library/debian", 24),
        ("docker.io/library/debian:12", "docker.io/lib", 0),
        ("docker.io/library/debian:12", "docker", 0),
        ("docker.io", "docker.io", 9),
        ("lab.lan:5000/a/b:1", "lab.lan", 0),  # another port is another registry
        ("lab.lan:5000/a/b:1", "lab.lan:5000", 12),
        ("lab.lan:5000/a/b:1", "lab.lan:500", 0),
        ("a.b.lan:5000/x:1", "*.lan", 12),
        ("a.b.lan/x:1", "*.b.lan", 7),
        ("b.lan/x:1", "*.b.lan", 0),
        ("ab.lan/x:1", "*.b.lan", 0),
        ("other.test/a.b.lan/x:1", "*.b.lan", 0),
    ],
)
def test_what_a_prefix_covers(name: str, prefix: str, length: int) -> None:
    assert matched(name, prefix) == length


RULES = """
[[registry]]
prefix = "example.com/foo"
location = "internal.lan/bar"
[[registry.mirror]]
location = "mirror-0.lan/mirror-for-foo"
[[registry.mirror]]
location = "mirror-1.lan:5000"

[[registry]]
prefix = "example.com/foo/deep"
location = "deep.lan"

[[registry]]
prefix = "*.wild.lan"

[[registry]]
prefix = "*.very.wild.lan"
location = "tame.lan/zoo"

[[registry]]
prefix = "one.very.wild.lan"
location = "one.lan"

[[registry]]
prefix = "example.com/pinned/image:1.0"
location = "internal.lan/pinned/image:2.0"
"""


@pytest.mark.parametrize(
    ("name", "places"),
    [
        (
            "example.com/foo/img:1",
            ["mirror-0.lan/mirror-for-foo/img:1", "mirror-1.lan:5000/img:1", "internal.lan/bar/img:1"],
        ),
        ("example.com/foo/deep/img:1", ["deep.lan/img:1"]),
        ("example.com/foobar/img:1", ["example.com/foobar/img:1"]),
        ("example.com/pinned/image:1.0", ["internal.lan/pinned/image:2.0"]),
        ("example.com/pinned/image:1.1", ["example.com/pinned/image:1.1"]),
        ("a.wild.lan/x:1", ["a.wild.lan/x:1"]),
        ("a.very.wild.lan:5000/x:1", ["tame.lan/zoo/x:1"]),
        ("one.very.wild.lan/x:1", ["one.lan/x:1"]),
    ],
)
def test_names_are_rewritten_by_the_longest_prefix(machine: Machine, name: str, places: list[str]) -> None:
    machine.write("etc/containers/registries.conf", RULES)
    assert machine.places(name) == places


def test_a_place_that_makes_no_name_is_told(machine: Machine) -> None:
    path = machine.write("user/argosy/registries.toml", '[[registry]]\nprefix = "a.lan"\nlocation = "b.lan/Big"')
    with pytest.raises(InvalidInput) as caught:
        machine.places("a.lan/x:1")
    assert (caught.value.message, caught.value.context) == (
        f"{path} makes no image name of 'a.lan/x:1'",
        "'b.lan/Big/x:1': 'Big' must be lower case",
    )


def test_when_a_mirror_is_asked(machine: Machine) -> None:
    machine.write(
        "user/argosy/registries.toml",
        """
[[registry]]
location = "a.lan"
mirror-by-digest-only = true
[[registry.mirror]]
location = "m.lan"
[[registry]]
location = "b.lan"
mirror = [
    {location = "all.lan", pull-from-mirror = "all"}, {location = "digest.lan", pull-from-mirror = "digest-only"},
    {location = "tag.lan", pull-from-mirror = "tag-only"}, {location = "unsaid.lan"},
]
""",
    )
    registries = machine.registries()
    said = [rule.mirrors for name in ("a.lan", "b.lan") if (rule := registries.rule(name))]
    assert [[mirror.serves for mirror in mirrors] for mirrors in said] == [
        ["digest-only"],
        ["all", "digest-only", "tag-only", "all"],
    ]


def test_insecure_holds_for_the_entry_that_says_so(machine: Machine) -> None:
    machine.write(
        "user/argosy/registries.toml",
        """
[[registry]]
location = "lab.lan:5000"
insecure = true
[[registry.mirror]]
location = "mirror.lan"
[[registry]]
prefix = "*.open.lan"
insecure = true
[[registry]]
location = "other.lan/part"
insecure = true
[[registry]]
prefix = "moved.lan"
location = "there.lan"
insecure = true
[[registry]]
location = "localhost:5000"
""",
    )
    settings = machine.registries().settings
    open_to_all, strict, asked = HostSettings(insecure=True), HostSettings(scheme="https"), HostSettings()
    assert {host: settings(host) for host in ("lab.lan:5000", "x.open.lan:80", "localhost:5000")} == {
        "lab.lan:5000": open_to_all,
        "x.open.lan:80": open_to_all,
        "localhost:5000": asked,  # http or https, whatever it speaks
    }
    # A part of a registry, the mirror of another, the name of one that has moved: not a word about these hosts.
    assert [settings(host) for host in ("other.lan", "mirror.lan", "moved.lan", "lab.lan")] == [asked] * 4
    rule = machine.registries().rule("lab.lan:5000")
    assert rule is not None
    assert machine.registries().settings_of(rule.mirrors[0], "mirror.lan") == strict


def test_a_blocked_registry_is_refused_with_the_file_that_says_so(machine: Machine) -> None:
    path = machine.write("etc/containers/registries.conf", '[[registry]]\nlocation = "evil.test/x"\nblocked = true')
    registries = machine.registries()
    assert registries.allowed(Reference.parse("evil.test/y:1")) is None
    with pytest.raises(Unauthorized) as caught:
        registries.allowed(Reference.parse("evil.test/x/y:1"))
    assert (caught.value.code, caught.value.message, caught.value.context) == (
        "registry-blocked",
        "evil.test/x/y:1 must not be used here",
        f"{path} blocks evil.test/x",
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[registry]", "registry: Expected `array`, got `object`"),
        ('[[registry]]\nlocation = "a.lan"\ninsecure = "yes"', "registry[0].insecure: Expected `bool`, got `str`"),
        ("[[registry]]\ninsecure = true", "registry[0].location: it is empty"),
        (
            '[[registry]]\nlocation = "https://a.lan"',
            "registry[0].location: 'https://a.lan' has a scheme; write the host alone, with insecure = true for plain "
            "http",
        ),
        (
            '[[registry]]\nlocation = "lan/a"',
            "registry[0].location: 'lan' is no registry; its name has a dot or a port, or is localhost",
        ),
        (
            '[[registry]]\nlocation = "a.lan"\n[[registry.mirror]]\nlocation = ""',
            "registry[0].mirror[0].location: it is empty",
        ),
        ('[[registry]]\nlocation = "a.lan"\n[[registry.mirror]]', "registry[0].mirror[0]: Object missing required "
         "field `location`"),
        (
            '[[registry]]\nlocation = "a.lan"\n[[registry.mirror]]\nlocation = "m.lan"\npull-from-mirror = "never"',
            "registry[0].mirror[0].pull-from-mirror: Invalid enum value 'never'",
        ),
        (
            '[[registry]]\nlocation = "a.lan"\nmirror-by-digest-only = true\n'
            '[[registry.mirror]]\nlocation = "m.lan"\npull-from-mirror = "all"',
            "registry[0]: mirror-by-digest-only and pull-from-mirror exclude each other",
        ),
        (
            '[[registry]]\nprefix = "*.a.lan/b"\nlocation = "c.lan"',
            "registry[0].prefix: '*.a.lan/b' has more than a domain after «*.»",
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["user/argosy/registries.toml", "etc/containers/registries.conf"])
def test_a_file_that_is_wrong_is_named_with_its_key(machine: Machine, path: str, text: str, why: str) -> None:
    file = machine.write(path, text)
    error = machine.error()
    ours = f"{machine.root}/user/argosy/registries.toml"
    hint = (
        "mend it, or move it away"
        if file == ours
        else f"mend it; a registry that {ours} speaks of is not looked up there"
    )
    assert (error.code, error.message, error.context, error.hint) == (
        "registries-invalid",
        f"cannot use {file}",
        why,
        hint,
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('[[registri]]\nlocation = "a.lan"', "registri: unknown; known are registry"),
        (
            '[[registry]]\nlocation = "a.lan"\n[[registry.mirrors]]\nlocation = "b.lan"',
            "registry[0].mirrors: unknown; known are prefix, location, insecure, blocked, mirror-by-digest-only, "
            "mirror",
        ),
        (
            '[[registry]]\nlocation = "a.lan"\n[[registry.mirror]]\nlocation = "b.lan"\nblocked = true',
            "registry[0].mirror[0].blocked: unknown; known are location, insecure, pull-from-mirror",
        ),
    ],
)
def test_an_unknown_key_is_a_mistake_in_our_file_and_ignored_in_podmans(machine: Machine, text: str, why: str) -> None:
    machine.write("etc/containers/registries.conf", text)
    machine.registries().rule("docker.io")
    machine.write("user/argosy/registries.toml", text)
    assert machine.error().context == why


def test_what_is_no_toml_is_told_with_its_line(machine: Machine) -> None:
    path = machine.write("etc/containers/registries.conf", '[[registry]]\nlocation = "a.lan"\ninsecure =\n')
    error = machine.error()
    assert (error.code, error.message, "line 3" in error.context) == ("registries-invalid", f"cannot use {path}", True)


def test_bytes_that_are_no_text_and_nesting_without_end_are_mistakes(machine: Machine) -> None:
    path = machine.root / "user/argosy/registries.toml"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\xff\xfe[[registry]]")
    assert machine.error().code == "registries-invalid"
    path.write_text("registry = " + "[" * 100_000)
    assert machine.error().context == "nested too deeply"


HOSTS = """
server = "https://registry-1.docker.io"
ca = "hub.crt"

[host."https://public.lan"]
  capabilities = ["pull"]
[host."http://plain.lan:5000"]
  capabilities = ["pull", "resolve"]
  skip_verify = true
[host."https://push.lan"]
  capabilities = ["push"]
[host."https://harbor.lan/v2/proxy"]
  capabilities = ["pull", "resolve"]
  override_path = true
  ca = ["/ca/one.pem", "two.pem"]
  client = [["ann.cert", "ann.key"], ["both.pem", ""], "alone.pem"]
[host."cache.lan/eu"]
"""


def test_what_containerds_hosts_file_says(machine: Machine) -> None:
    folder = f"{machine.root}/etc/containerd/certs.d/docker.io"
    path = machine.write("etc/containerd/certs.d/docker.io/hosts.toml", HOSTS)
    pairs = ((f"{folder}/ann.cert", f"{folder}/ann.key"), (f"{folder}/both.pem", ""), (f"{folder}/alone.pem", ""))
    hub = Certificates(ca_files=(f"{folder}/hub.crt",))
    harbor = Certificates(ca_files=("/ca/one.pem", f"{folder}/two.pem"), client_pairs=pairs)
    assert machine.registries().rule("docker.io/library/debian:12") == Rule(
        prefix="docker.io",
        mirrors=(
            Endpoint(location="public.lan", serves="content-only", scheme="https", namespace="docker.io"),
            Endpoint(location="plain.lan:5000", scheme="http", insecure=True, namespace="docker.io"),
            Endpoint(location="harbor.lan/proxy", scheme="https", certificates=harbor, namespace="docker.io"),
            Endpoint(location="cache.lan", scheme="https", api="/eu/v2", namespace="docker.io"),
        ),
        origin=Endpoint(location="docker.io", scheme="https", certificates=hub),
        file=path,
    )
    assert machine.places("debian:12") == [
        "public.lan/library/debian:12",
        "plain.lan:5000/library/debian:12",
        "harbor.lan/proxy/library/debian:12",
        "cache.lan/library/debian:12",
        "docker.io/library/debian:12",
    ]


@pytest.mark.parametrize("folder", ["lab.lan_5000_", "lab.lan:5000", "_default"])
def test_where_containerd_keeps_a_registry_with_a_port(machine: Machine, folder: str) -> None:
    machine.write(f"user/containerd/certs.d/{folder}/hosts.toml", '[host."https://m.lan"]')
    assert machine.places("lab.lan:5000/a:1") == ["m.lan/a:1", "lab.lan:5000/a:1"]


def test_a_registrys_own_folder_hides_the_default_even_without_a_file(machine: Machine) -> None:
    machine.write("etc/containerd/certs.d/_default/hosts.toml", '[host."https://m.lan"]')
    ca = machine.write("etc/containerd/certs.d/lab.lan/ca.crt", "…")
    registries = machine.registries()
    assert registries.rule("lab.lan/a:1") is None
    assert registries.settings("lab.lan").certificates.ca_files == (ca,)
    assert registries.rule("other.lan/a:1") is not None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("server = 1", "server: Expected `str`, got `int`"),
        ('[host."ftp://m.lan"]', "'ftp://m.lan' is not the address of a registry"),
        ('[host."https://user@m.lan"]', "'https://user@m.lan' is not the address of a registry"),
        ('[host."https://m.lan"]\nclient = [["a", "b", "c"]]', "client: ['a', 'b', 'c'] is no certificate and its key"),
        ('[host."https://m.lan"]\nskip_verify = "no"', "host[...].skip_verify: Expected `bool`, got `str`"),
    ],
)  # fmt: skip
def test_a_hosts_file_that_is_wrong_is_named(machine: Machine, text: str, why: str) -> None:
    path = machine.write("etc/containerd/certs.d/docker.io/hosts.toml", text)
    error = machine.error()
    assert (error.message, error.context) == (f"cannot use {path}", why)


def test_what_dockers_daemon_file_says(machine: Machine) -> None:
    document = {
        "registry-mirrors": ["https://m.lan", "http://plain.lan:5000/", "https://open.lan:444"],
        "insecure-registries": ["open.lan:444", "10.0.0.0/8", "fd00::/8"],
        "storage-driver": "overlay2",
    }
    path = machine.write("etc/docker/daemon.json", json.dumps(document))
    registries = machine.registries()
    assert registries.rule("docker.io/library/debian:12") == Rule(
        prefix="docker.io",
        mirrors=(
            Endpoint(location="m.lan", scheme="https"),
            Endpoint(location="plain.lan:5000", scheme="http"),
            Endpoint(location="open.lan:444", scheme="https", insecure=True),
        ),
        origin=Endpoint(location="docker.io"),
        file=path,
    )
    assert registries.rule("quay.io/a/b:1") is None
    hosts = ("open.lan:444", "open.lan", "10.1.2.3:5000", "11.1.2.3:5000", "[fd00::1]:5000", "10.lan")
    assert [registries.settings(host).insecure for host in hosts] == [True, False, True, False, True, False]
    machine.write("user/docker/daemon.json", "{}")
    assert machine.registries().rule("docker.io/library/debian:12") is None


@pytest.mark.parametrize("text", ["{", '{"registry-mirrors": "https://m.lan"}', '{"registry-mirrors": ["ftp://m"]}'])
def test_a_daemon_file_that_is_wrong_is_named(machine: Machine, text: str) -> None:
    path = machine.write("etc/docker/daemon.json", text)
    assert machine.error().message == f"cannot use {path}"


def test_podmans_programs_for_every_registry(machine: Machine) -> None:
    assert machine.registries().credential_helpers() == ()
    folder = "etc/containers/registries.conf.d"
    machine.write("etc/containers/registries.conf", 'credential-helpers = ["one"]\n' + MIRROR)
    machine.write(f"{folder}/10.conf", 'credential-helpers = ["containers-auth.json", "two", "three"]')
    machine.write(f"{folder}/20.conf", '[[registry]]\nlocation = "a.lan"')
    assert machine.registries().credential_helpers() == ("two", "three")


def test_a_list_of_short_names_is_not_parsed(machine: Machine) -> None:
    """Which is rubbish to a parser, and so would be told."""
    machine.write("etc/containers/registries.conf", '[aliases]\n"registry" = "docker.io/library/registry"\n[[')
    assert machine.registries().rule("docker.io") is None


def test_the_order_of_programs(machine: Machine) -> None:
    machine.write("etc/docker/daemon.json", '{"registry-mirrors": ["https://docker.lan"]}')
    assert machine.places("a/b:1")[0] == "docker.lan/a/b:1"
    machine.write("etc/containerd/certs.d/docker.io/hosts.toml", '[host."https://containerd.lan"]')
    assert machine.places("a/b:1")[0] == "containerd.lan/a/b:1"
    machine.write("etc/containers/registries.conf", MIRROR.replace("mirror.lan:5000/hub", "podman.lan"))
    assert machine.places("a/b:1")[0] == "podman.lan/a/b:1"
    machine.write("etc/argosy/registries.toml", MIRROR.replace("mirror.lan:5000/hub", "ours.lan"))
    assert machine.places("a/b:1") == ["ours.lan/a/b:1", "docker.io/a/b:1"]


def test_all_that_is_said_can_be_listed(machine: Machine) -> None:
    machine.write("etc/containers/registries.conf", MIRROR)
    machine.write(
        "etc/containers/registries.conf.d/000-shortnames.conf", '[aliases]\n"debian" = "docker.io/library/debian"'
    )
    machine.write("etc/containerd/certs.d/lab.lan_5000_/hosts.toml", 'server = "http://lab.lan:5000"')
    machine.write("etc/containerd/certs.d/_default/hosts.toml", '[host."https://m.lan"]')
    machine.write("etc/docker/daemon.json", '{"insecure-registries": ["lab.lan:5000"]}')
    registries = machine.registries()
    assert [rule.prefix for rule in registries.rules()] == ["docker.io", "_default", "lab.lan:5000", "lab.lan:5000"]
    assert len(registries.files) == 5


@pytest.mark.parametrize(
    ("folder", "host"),
    [
        ("user/argosy/certs.d/lab.lan", "lab.lan"),
        ("user/containers/certs.d/lab.lan:5000", "lab.lan:5000"),
        ("etc/argosy/certs.d/lab.lan", "lab.lan"),
        ("etc/containers/certs.d/lab.lan", "lab.lan"),
        ("etc/docker/certs.d/[::1]:5000", "[::1]:5000"),
        ("docker/certs.d/docker.io", "registry-1.docker.io"),
    ],
)
def test_where_certificates_are_found(machine: Machine, folder: str, host: str) -> None:
    ca, extra = machine.write(f"{folder}/ca.crt", ""), machine.write(f"{folder}/more.crt", "")
    pair = (machine.write(f"{folder}/client.cert", ""), machine.write(f"{folder}/client.key", ""))
    machine.write(f"{folder}/README", "")
    registries = machine.registries()
    assert registries.settings(host) == HostSettings(
        certificates=Certificates(ca_files=(ca, extra), client_pairs=(pair,))
    )
    assert registries.settings("lab.lan:5001") == HostSettings()


@pytest.mark.parametrize("host", ["..", ".", "a/b", "", "a..b", "-x", "a:b", "a:123456"])
def test_a_host_that_is_none_has_no_folder(machine: Machine, host: str) -> None:
    machine.write("etc/docker/ca.crt", "")
    machine.write("etc/docker/certs.d/ca.crt", "")
    machine.write("etc/docker/certs.d/a/b/ca.crt", "")
    assert find_certificates(host, (str(machine.root / "etc/docker/certs.d"),)) == Certificates()


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("client.cert", "client.cert has no client.key beside it", "a CA's certificate ends with .crt"),
        ("client.key", "client.key has no client.cert beside it", ""),
    ],
)
def test_half_of_a_pair_is_a_mistake(machine: Machine, name: str, message: str, hint: str) -> None:
    machine.write(f"etc/docker/certs.d/lab.lan/{name}", "")
    with pytest.raises(InvalidInput) as caught:
        machine.registries().settings("lab.lan")
    assert (caught.value.code, caught.value.hint) == ("certificates-invalid", hint)
    assert caught.value.message == f"{machine.root}/etc/docker/certs.d/lab.lan/{message}"


@pytest.mark.parametrize(
    ("environ", "user", "docker"),
    [
        ({"HOME": "/home/ann"}, "/home/ann/.config", "/home/ann/.docker"),
        ({"HOME": "/home/ann", "XDG_CONFIG_HOME": "/conf", "DOCKER_CONFIG": "/docker"}, "/conf", "/docker"),
        ({"HOME": "/home/ann", "XDG_CONFIG_HOME": "relative"}, "/home/ann/.config", "/home/ann/.docker"),
        ({}, "", ""),
    ],
)
def test_where_files_are_looked_for(environ: dict[str, str], user: str, docker: str) -> None:
    assert Folders.of(environ) == Folders(user=user, docker=docker)
