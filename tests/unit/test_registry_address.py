"""Where a registry may listen."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from argosy.errors import Conflict, InvalidInput, Unauthorized
from argosy.registry.serve import Address, address_of, listen

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:5000", Address(host="127.0.0.1", port=5000)),
        (":5000", Address(host="127.0.0.1", port=5000)),
        ("localhost:0", Address(host="localhost", port=0)),
        ("[::1]:80", Address(host="::1", port=80)),
        ("unix:/run/x.sock", Address(path="/run/x.sock")),
    ],
)
def test_an_address_is_parsed(text: str, expected: Address) -> None:
    assert Address.parse(text) == expected


@pytest.mark.parametrize(
    "text", ["", "5000", "host", "host:", "host:x", "host:70000", "::1:5000", "[::1:80", "unix:x", "a:٣"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Address.parse(text)
    assert caught.value.code == "listen-invalid"


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_listening_beyond_this_machine_needs_a_word(host: str) -> None:
    with pytest.raises(Unauthorized) as caught:
        listen(Address(host=host, port=0))
    assert caught.value.code == "listen-not-loopback"
    assert "--insecure-anonymous-write" in caught.value.hint
    if host == "0.0.0.0":
        listen(Address(host=host, port=0), anonymous_write=True).close()


def test_a_free_port_is_taken_and_told() -> None:
    with listen(Address.parse("127.0.0.1:0")) as listening:
        host, _, port = address_of(listening).rpartition(":")
        assert host == "127.0.0.1"
        with pytest.raises(Conflict) as caught:
            listen(Address(host=host, port=int(port)))
        assert caught.value.code == "address-in-use"


def test_an_unknown_host_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"no such host: 'no\.such\.invalid'"):
        listen(Address(host="no.such.invalid", port=1))


def test_a_unix_socket_is_this_users_alone_and_replaces_a_dead_one(tmp_path: Path) -> None:
    address = Address(path=str(tmp_path / "socket"))
    listen(address).close()
    with listen(address) as listening:
        assert (tmp_path / "socket").stat().st_mode & 0o777 == 0o600
        assert address_of(listening) == f"unix:{tmp_path}/socket"
        with pytest.raises(Conflict):
            listen(address)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(address.path)
    (tmp_path / "file").write_bytes(b"precious")
    with pytest.raises(Conflict, match="is no socket"):
        listen(Address(path=str(tmp_path / "file")))
