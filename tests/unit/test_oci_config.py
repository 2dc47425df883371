"""Image configs: read leniently, changed without losing what we do not know."""

from __future__ import annotations

import json

import pytest

from argosy.errors import Corrupt
from argosy.oci.config import Healthcheck, History, ImageConfig
from argosy.oci.digest import Digest
from argosy.oci.platform import Platform

A, B = Digest.of(b"a"), Digest.of(b"b")
RAW = json.dumps(
    {
        "architecture": "arm64",
        "os": "linux",
        "variant": "v8",
        "created": "2026-11-23T00:00:00Z",
        "author": "me",
        "docker_version": "27",
        "config": {
            "User": "1000:1000",
            "Env": ["PATH=/bin", "A=1", "A=2", "EMPTY=", "ODD"],
            "Entrypoint": ["/entry"],
            "Cmd": ["sh"],
            "WorkingDir": "/work",
            "Labels": {"a": "b"},
            "ExposedPorts": {"80/tcp": {}},
            "Volumes": {"/data": {}},
            "StopSignal": "SIGINT",
            "Shell": ["/bin/bash", "-c"],
            "OnBuild": ["RUN x"],
            "Healthcheck": {"Test": ["CMD", "x"], "Interval": 5},
            "vendor.Thing": {"kept": True},
        },
        "rootfs": {"type": "layers", "diff_ids": [A]},
        "history": [{"created": "2026-11-23T00:00:00Z", "created_by": "x", "odd": 1}, {"empty_layer": True}],
        "vendor": [1, 2],
    }
).encode()


def test_every_field_is_read() -> None:
    assert ImageConfig.parse(RAW) == ImageConfig(
        raw=RAW,
        platform=Platform(os="linux", architecture="arm64", variant="v8"),
        created="2026-11-23T00:00:00Z",
        author="me",
        env=("PATH=/bin", "A=1", "A=2", "EMPTY=", "ODD"),
        entrypoint=("/entry",),
        cmd=("sh",),
        user="1000:1000",
        working_dir="/work",
        labels={"a": "b"},
        exposed_ports=("80/tcp",),
        volumes=("/data",),
        stop_signal="SIGINT",
        shell=("/bin/bash", "-c"),
        on_build=("RUN x",),
        healthcheck=Healthcheck(test=("CMD", "x"), interval=5),
        diff_ids=(A,),
        history=(History(created="2026-11-23T00:00:00Z", created_by="x"), History(empty_layer=True)),
    )


def test_the_last_of_equal_variables_wins() -> None:
    assert ImageConfig.parse(RAW).environment == {"PATH": "/bin", "A": "2", "EMPTY": "", "ODD": ""}


@pytest.mark.parametrize(
    "raw",
    [
        b"{}",
        b'{"config":null,"rootfs":null,"history":null,"created":null}',
        b'{"config":{"Env":null,"Cmd":null,"Labels":null,"Volumes":null}}',
        b'{"os":null,"variant":null,"rootfs":{"type":null,"diff_ids":null},"config":{"Healthcheck":{"Test":null}}}',
    ],
)
def test_what_is_absent_or_null_is_empty(raw: bytes) -> None:
    config = ImageConfig.parse(raw)
    assert (config.env, config.cmd, config.labels, config.diff_ids, config.history, config.created) == (
        (),
        (),
        {},
        (),
        (),
        "",
    )


def test_nulls_in_history_are_absent_too() -> None:
    raw = b'{"history":[{"created":null,"created_by":"a","author":null},{"empty_layer":null}]}'
    assert ImageConfig.parse(raw).history == (History(created_by="a"), History())


def test_a_shell_line_of_an_old_image_becomes_a_command() -> None:
    config = ImageConfig.parse(b'{"config":{"Cmd":"echo hi","Entrypoint":""}}')
    assert (config.cmd, config.entrypoint) == (("/bin/sh", "-c", "echo hi"), ())


@pytest.mark.parametrize(
    ("raw", "context"),
    [
        (b"", "Input data was truncated"),
        (b"<html>", "JSON is malformed: invalid character (byte 0)"),
        (b"[]", "Expected `object`, got `array`"),
        (b'{"config":{"Env":"A=1"}}', "Expected `array | null`, got `str` - at `$.config.Env`"),
        (b'{"rootfs":{"diff_ids":["x"]}}', "not a digest: 'x'"),
    ],
)
def test_a_bad_config_is_corrupt(raw: bytes, context: str) -> None:
    with pytest.raises(Corrupt) as caught:
        ImageConfig.parse(raw)
    assert (caught.value.code, caught.value.context) == ("config-invalid", context)


def test_a_change_keeps_every_other_field() -> None:
    changed = ImageConfig.parse(RAW).with_(
        execution={"Cmd": ["bash"], "StopSignal": None},
        diff_ids=(A, B),
        history=(History(created_by="new"),),
        author="you",
    )
    before, after = json.loads(RAW), json.loads(changed.raw)
    before["config"]["Cmd"] = ["bash"]
    del before["config"]["StopSignal"]
    before["rootfs"]["diff_ids"] = [A, B]
    before["history"] = [{"created_by": "new"}]
    before["author"] = "you"
    assert after == before


def test_equal_changes_give_equal_bytes_whatever_the_order_of_fields() -> None:
    shuffled = json.dumps(dict(reversed(json.loads(RAW).items()))).encode()
    one = ImageConfig.parse(RAW).with_(created="2026-01-01T00:00:00Z")
    two = ImageConfig.parse(shuffled).with_(created="2026-01-01T00:00:00Z")
    assert one.raw == two.raw
    assert one.descriptor == two.descriptor


def test_no_change_is_idempotent() -> None:
    once = ImageConfig.parse(RAW).with_()
    assert once.with_().raw == once.raw


def test_scratch_has_a_platform_and_no_layers() -> None:
    config = ImageConfig.scratch(Platform.parse("linux/arm/v7"))
    assert config.raw == (
        b'{"architecture":"arm","os":"linux","variant":"v7","config":{},"rootfs":{"type":"layers","diff_ids":[]}}'
    )


@pytest.mark.parametrize("member", [b'"\xff":1', b'"x":"\xff"', b'"x":1e999'])
def test_a_member_that_cannot_be_kept_makes_a_change_fail_cleanly(member: bytes) -> None:
    config = ImageConfig.parse(b'{"os":"linux","architecture":"amd64",' + member + b"}")
    with pytest.raises(Corrupt) as caught:
        config.with_(author="x")
    assert caught.value.code == "config-invalid"
