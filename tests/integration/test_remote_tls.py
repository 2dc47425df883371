"""TLS with real certificates: whose CA is trusted for whom, who sees our certificate, proxies, redirects."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from argosy.errors import InvalidInput, Unavailable
from argosy.oci.digest import Digest
from argosy.oci.reference import Reference
from argosy.remote.credentials import Credentials
from argosy.remote.hosts import Certificates, HostSettings
from argosy.remote.messages import HttpRequest
from argosy.remote.mirrors import connect
from argosy.remote.registries import Folders, Registries
from argosy.remote.session import Session
from argosy.remote.transport import RetryPolicy, Transport
from support.docker_registry import docker_registry
from support.images import random_image
from support.proxy import proxying
from support.registry import running_registry
from support.stores import argosy, load_image
from support.tls import Authority, server_context
from support.web import Reply, Seen, forward, serving

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "lab")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "stranger")


def ok(seen: Seen) -> Reply:
    return Reply(body=b"ok")


def trusting(*authorities: Authority, clients: tuple[tuple[Path, Path], ...] = ()) -> HostSettings:
    certificates = Certificates(
        ca_files=tuple(str(one.ca_file) for one in authorities),
        client_pairs=tuple((str(certificate), str(key)) for certificate, key in clients),
    )
    return HostSettings(certificates=certificates)


@contextmanager
def client(
    hosts: Mapping[str, HostSettings] | None = None, environ: Mapping[str, str] | None = None
) -> Iterator[Transport]:
    known = hosts or {}
    policy = RetryPolicy(attempts=2, first_pause_s=0.01)
    transport = Transport(environ, retries=policy, hosts=lambda host: known.get(host, HostSettings()))
    try:
        yield transport
    finally:
        transport.close()


def get(transport: Transport, url: str, **headers: str) -> tuple[int, bytes]:
    with transport.send(HttpRequest(method="GET", url=url, headers=headers)) as response:
        return response.status, response.read_all(1000)


def refusal(transport: Transport, url: str) -> Unavailable:
    with pytest.raises(Unavailable) as caught:
        get(transport, url)
    return caught.value


def test_a_ca_is_trusted_for_its_host_alone(lab: Authority) -> None:
    server = lab.server("127.0.0.1")
    with (
        serving(ok, tls=server) as site,
        serving(ok, tls=server) as other,
        client({site.address: trusting(lab)}) as transport,
    ):
        assert get(transport, site.url) == (200, b"ok")
        error = refusal(transport, other.url)
    assert (error.code, error.message) == ("tls-failed", f"{other.address}: no trusted connection")
    assert "certificate verify failed" in error.context
    assert f"~/.config/argosy/certs.d/{other.address}/ca.crt" in error.hint


def test_a_certificate_for_another_name_is_refused(lab: Authority) -> None:
    with serving(ok, tls=lab.server("127.0.0.2")) as site, client({site.address: trusting(lab)}) as transport:
        assert "certificate is not valid for '127.0.0.1'" in refusal(transport, site.url).context


def test_a_servers_own_certificate_may_be_what_is_trusted(lab: Authority) -> None:
    """Docker's and podman's TLS library takes any certificate as an anchor, and people count on it."""
    certificate, key = lab.issue("127.0.0.1")
    settings = HostSettings(certificates=Certificates(ca_files=(str(certificate),)))
    with serving(ok, tls=server_context(certificate, key)) as site, client({site.address: settings}) as transport:
        assert get(transport, site.url) == (200, b"ok")


def test_an_insecure_host_may_have_any_certificate_and_others_may_not(stranger: Authority) -> None:
    with (
        serving(ok, tls=stranger.server("x.test")) as site,
        serving(ok, tls=stranger.server("127.0.0.1")) as other,
        client({site.address: HostSettings(insecure=True)}) as transport,
    ):
        assert get(transport, site.url) == (200, b"ok")
        assert refusal(transport, other.url).code == "tls-failed"


def test_a_redirect_from_an_insecure_host_is_followed_with_the_default_trust(stranger: Authority) -> None:
    with serving(ok, tls=stranger.server("127.0.0.1")) as storage:
        led = Reply(status=307, headers={"Location": f"{storage.url}/blob"})
        with serving(lambda seen: led, tls=stranger.server("127.0.0.1")) as site:
            with client({site.address: HostSettings(insecure=True)}) as transport:
                assert refusal(transport, site.url).message == f"{storage.address}: no trusted connection"
            assert storage.seen == []


def test_our_certificate_is_shown_to_its_host(lab: Authority) -> None:
    server = lab.server("127.0.0.1", asks_clients=True)
    with serving(ok, tls=server) as site:
        with client({site.address: trusting(lab, clients=(lab.client("ann"),))}) as transport:
            assert get(transport, site.url) == (200, b"ok")
        with client({site.address: trusting(lab)}) as transport:
            error = refusal(transport, site.url)
    assert error.code in ("tls-failed", "connection-lost")  # the alert, or the end that may overtake it


def test_a_certificate_of_ours_is_not_shown_where_a_redirect_leads(lab: Authority) -> None:
    server = lab.server("127.0.0.1", asks_clients=True)
    with serving(ok, tls=server) as storage:
        led = Reply(status=307, headers={"Location": f"{storage.url}/blob"})
        with serving(lambda seen: led, tls=server) as site:
            hosts = {
                site.address: trusting(lab, clients=(lab.client("ann"),)),
                storage.address: trusting(lab),
            }
            with client(hosts) as transport:
                refusal(transport, site.url)
            assert (len(site.seen), storage.seen) == (1, [])


@pytest.mark.parametrize("what", ["absent", "rubbish", "folder", "foreign key", "key with a passphrase"])
def test_a_certificate_that_cannot_be_used_is_named(lab: Authority, tmp_path: Path, what: str) -> None:
    bad, (certificate, key) = tmp_path / "bad.pem", lab.client("ann")
    settings = HostSettings(certificates=Certificates(ca_files=(str(bad),)))
    if what == "rubbish":
        bad.write_text("-----BEGIN CERTIFICATE-----\nrubbish\n")
    elif what == "folder":
        bad.mkdir()
    elif what == "foreign key":
        shutil.copy(certificate, bad)
        settings = trusting(clients=((bad, lab.client("bob")[1]),))
    elif what == "key with a passphrase":
        shutil.copy(certificate, bad)
        locked = tmp_path / "locked.key"
        words = ["openssl", "pkey", "-in", str(key), "-aes256", "-passout", "pass:secret", "-out", str(locked)]
        subprocess.run(words, check=True, capture_output=True)
        settings = trusting(clients=((bad, locked),))
    with client({"lab.test": settings}) as transport, pytest.raises(InvalidInput) as caught:
        get(transport, "https://lab.test/")
    assert (caught.value.code, caught.value.message) == (
        "certificates-invalid",
        f"cannot use the certificate {bad}",
    )


@pytest.mark.parametrize("secure", [True, False])
def test_an_insecure_registry_is_spoken_to_as_it_speaks(stranger: Authority, secure: bool) -> None:
    """It has a name that is not of this machine, so a proxy leads there."""
    hosts = {"lab.test:5000": HostSettings(insecure=True)}
    with (
        serving(ok, tls=stranger.server("x.test") if secure else None) as site,
        proxying({"lab.test:5000": site.address}) as proxy,
        client(hosts, {"http_proxy": proxy.url, "https_proxy": proxy.url}) as transport,
    ):
        session = Session(transport, "lab.test:5000", None)  # type: ignore[arg-type]  # base asks nobody
        assert session.base == f"{'https' if secure else 'http'}://lab.test:5000"
        assert get(transport, session.url("/v2/x")) == (200, b"ok")
        with pytest.raises(InvalidInput) as caught:
            get(transport, "http://other.test/")
        assert caught.value.code == "plain-http"


def test_through_a_proxy_with_a_login(lab: Authority) -> None:
    hosts, url = {"nvcr.io": trusting(lab)}, "https://nvcr.io/v2/"
    with (
        serving(ok, tls=lab.server("nvcr.io")) as site,
        proxying({"nvcr.io:443": site.address}, login="Basic bWU6cGFzcyB3b3Jk") as proxy,
    ):
        with client(hosts, {"https_proxy": f"http://me:pass%20word@{proxy.address}"}) as transport:
            assert get(transport, url) == (200, b"ok")
        assert (proxy.asked, "proxy-authorization" in site.seen[0].headers) == (["CONNECT nvcr.io:443"], False)
        with client(hosts, {"https_proxy": f"http://me:wrong@{proxy.address}"}) as transport:
            error = refusal(transport, url)
        assert (error.code, "407" in error.context, "wrong" in error.context) == ("proxy-failed", True, False)
        with client(hosts, {"https_proxy": proxy.url, "no_proxy": ".io"}) as transport:
            assert refusal(transport, url).code != "proxy-failed"


def test_a_proxy_may_itself_be_reached_by_tls(lab: Authority) -> None:
    """As http to the registry: the proxy forwards, and its certificate is checked with the default trust."""

    def answer(seen: Seen) -> Reply:
        return Reply(body=seen.target.encode())

    with serving(answer, tls=lab.server("127.0.0.1")) as proxy:
        environ = {"http_proxy": proxy.url}
        with client({"lab.test": HostSettings(scheme="http")}, {**environ, "SSL_CERT_FILE": str(lab.ca_file)}) as there:
            assert get(there, "http://lab.test/v2/") == (200, b"http://lab.test/v2/")
        with client({"lab.test": HostSettings(scheme="http")}, environ) as there:
            assert refusal(there, "http://lab.test/v2/").code in ("tls-failed", "proxy-failed")


def test_docker_registry_that_wants_client_certificates(lab: Authority, tmp_path: Path) -> None:
    """The whole way, as a user: certs.d, then pull; and what is said when the certificate is missing."""
    image, store = random_image(tmp_path / "image"), tmp_path / "store"
    with docker_registry(tmp_path / "registry", authority=lab) as address:
        folder = tmp_path / f"config/argosy/certs.d/{address}"
        folder.mkdir(parents=True)
        shutil.copy(lab.ca_file, folder / "ca.crt")
        environ = {"XDG_CONFIG_HOME": str(tmp_path / "config"), "HOME": str(tmp_path)}
        refused = argosy(store, "pull", f"{address}/team/app:1", environ=environ)
        assert refused.returncode == 1
        assert b"it wants a client certificate [tls-failed]" in refused.stderr
        assert f"put yours into ~/.config/argosy/certs.d/{address}/ as client.cert and client.key".encode() in (
            refused.stderr
        )
        certificate, key = lab.client("ann")
        shutil.copy(certificate, folder / "client.cert")
        shutil.copy(key, folder / "client.key")
        absent = argosy(store, "pull", f"{address}/team/app:1", environ=environ)
        assert b"[repository-unknown]" in absent.stderr, absent.stderr
        load_image(store, image, f"{address}/team/app:1")
        assert argosy(store, "push", "-q", f"{address}/team/app:1", environ=environ).stderr == b""
        pulled = argosy(tmp_path / "other", "pull", "-q", f"{address}/team/app:1", environ=environ)
        assert (pulled.returncode, pulled.stderr) == (0, b"")


def test_our_registry_behind_tls_and_a_name(lab: Authority, tmp_path: Path) -> None:
    """A pull by a name of the real internet, through a proxy, with a CA in certs.d and nothing else."""
    image = random_image(tmp_path / "image")
    folder = tmp_path / ".docker/certs.d/registry.test"
    folder.mkdir(parents=True)
    shutil.copy(lab.ca_file, folder / "ca.crt")
    with (
        running_registry(tmp_path / "registry") as registry,
        serving(lambda seen: forward(registry.address, seen), tls=lab.server("registry.test")) as door,
        proxying({"registry.test:443": door.address}) as proxy,
    ):
        registry.push(image, "team/app", "1")
        environ = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": "", "https_proxy": proxy.url, "no_proxy": ""}
        pulled = argosy(tmp_path / "store", "pull", "-q", "registry.test/team/app:1", environ=environ)
    assert (pulled.returncode, pulled.stderr, pulled.stdout) == (0, b"", b"registry.test/team/app:1\n")


def test_a_part_of_a_registry_may_be_insecure_for_reading_and_writing(stranger: Authority, tmp_path: Path) -> None:
    """Also where a mirror stands before it; the rest of the registry stays as strict as it was."""
    path = tmp_path / "argosy/registries.toml"
    path.parent.mkdir()

    def answer(seen: Seen) -> Reply:
        return Reply(status=202 if seen.method == "POST" else 200, headers={"Location": "/up"})

    with serving(answer, tls=stranger.server("x.test")) as site:
        mirror = '[[registry.mirror]]\nlocation = "127.0.0.1:1/away"'
        path.write_text(f'[[registry]]\nlocation = "{site.address}/lab"\ninsecure = true\n{mirror}')
        registries = Registries(Folders(user=str(tmp_path), system="/absent"))
        transport = Transport({}, hosts=registries.settings, retries=RetryPolicy(attempts=1))
        found = {}
        for part in ("lab", "other"):
            reference = Reference.parse(f"{site.address}/{part}/app:1")
            repository = connect(
                reference, transport=transport, credentials=Credentials({"HOME": "/absent"}), registries=registries
            )
            try:
                found[part] = str(repository.has_manifest(Digest.of(b"")))
            except Unavailable as error:
                found[part] = error.code
        transport.close()
    assert found == {"lab": "True", "other": "tls-failed"}


def test_certificates_are_those_of_the_folder_of_a_host(lab: Authority, tmp_path: Path) -> None:
    with serving(ok, tls=lab.server("127.0.0.1", asks_clients=True)) as site:
        folder = tmp_path / f"etc/docker/certs.d/{site.address}"
        folder.mkdir(parents=True)
        certificate, key = lab.client("ann")
        for source, name in ((lab.ca_file, "lab.crt"), (certificate, "ann.cert"), (key, "ann.key")):
            shutil.copy(source, folder / name)
        registries = Registries(Folders(user="", system=str(tmp_path / "etc")))
        transport = Transport({}, hosts=registries.settings)
        assert get(transport, site.url) == (200, b"ok")
        transport.close()
