"""inspect: an image or a container as the JSON object that Docker would show. Pure, over what was read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from .execution import execution_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..oci.config import ImageConfig
    from ..oci.image import Image
    from ..store.records import Container
    from ..store.refs import RefRecord

ZERO_TIME = "0001-01-01T00:00:00Z"  # Go's zero time, which Docker's clients read as «never»


def describe_image(records: Sequence[RefRecord], image: Image) -> dict[str, Any]:  # Any: JSON
    """The image with all its names, newest knowledge first. *records* are its names, at least one."""
    first, config = records[0], image.config
    document = msgspec.json.decode(config.raw)
    named = [record for record in records if not record.is_untagged]
    return {
        "Id": first.image_id,
        "RepoTags": sorted({r.reference.familiar() for r in named if r.reference.tag and not r.reference.digest}),
        "RepoDigests": sorted({f"{r.reference.familiar_name}@{r.descriptor.digest}" for r in named}),
        "Parent": "",
        "Comment": config.history[-1].comment if config.history else "",
        "Created": config.created or ZERO_TIME,
        "DockerVersion": document.get("docker_version", ""),
        "Author": config.author,
        "Architecture": config.platform.architecture,
        **({"Variant": config.platform.variant} if config.platform.variant else {}),
        "Os": config.platform.os,
        "Size": first.size,
        "Config": _execution(document.get("config") or {}),
        "RootFS": {"Type": "layers", "Layers": list(config.diff_ids)},
        "Metadata": {"LastTagTime": max(record.updated for record in records)},
        "Descriptor": {
            "mediaType": first.descriptor.media_type,
            "digest": first.descriptor.digest,
            "size": first.descriptor.size,
        },
    }


def describe_container(record: Container, folder: str, config: ImageConfig) -> dict[str, Any]:  # Any: JSON
    """The container as its record tells; *config* is its image's."""
    options = record.options if isinstance(record.options, dict) else msgspec.to_builtins(record.options, enc_hook=str)
    return {
        "Id": record.id,
        "Created": record.created,
        "Path": record.command[0] if record.command else "",
        "Args": list(record.command[1:]),
        "State": _state(record),
        "Image": record.image_id,
        "Name": f"/{record.name}",
        "RestartCount": 0,
        "Driver": record.snapshotter,
        "Platform": "linux",
        "Node": {"Name": record.host},
        "LogPath": "",
        "HostConfig": {"AutoRemove": record.auto_remove, "NetworkMode": options.get("network", "")},
        "GraphDriver": {"Name": record.snapshotter, "Data": {"UpperDir": f"{folder}/upper"}},
        "Config": {
            "Image": record.image,
            **_execution({name: value for name, value in execution_of(record, config).items() if value is not None}),
            "Hostname": options.get("hostname") or "",
            "Tty": bool(options.get("terminal", False)),
            "OpenStdin": bool(options.get("interactive", False)),
        },
        "Mounts": [_mount(volume) for volume in options.get("volumes", ())],
        "ImageManifestDescriptor": {
            "mediaType": record.manifest.media_type,
            "digest": record.manifest.digest,
            "size": record.manifest.size,
        },
        "Options": options,
    }


def _mount(volume: Mapping[str, Any]) -> dict[str, Any]:  # Any: JSON
    read_only = bool(volume.get("read_only"))
    return {
        "Type": "bind",
        "Source": volume.get("source", ""),
        "Destination": volume.get("target", ""),
        "Mode": "ro" if read_only else "",
        "RW": not read_only,
        "Propagation": volume.get("propagation", "rprivate"),
    }


def _state(record: Container) -> dict[str, Any]:  # Any: JSON
    running = record.status == "running"
    return {
        "Status": record.status,
        "Running": running,
        "Paused": False,
        "Restarting": False,
        "OOMKilled": False,
        "Dead": False,
        "Pid": (record.pid or 0) if running else 0,
        "ExitCode": record.exit_code or 0,
        "Error": "",
        "StartedAt": record.started or ZERO_TIME,
        "FinishedAt": record.finished or ZERO_TIME,
    }


def _execution(config: Mapping[str, Any]) -> dict[str, Any]:  # Any: JSON
    """The config's own object with the fields that Docker's clients expect to be there."""
    expected = {"User": "", "Env": None, "Cmd": None, "WorkingDir": "", "Entrypoint": None, "Labels": None}
    return {**expected, **config}
