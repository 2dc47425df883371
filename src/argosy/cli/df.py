"""argosy df: what the store takes on the disk, in Docker's columns; -v for each image, container and leftover."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ..ops import df as ops
from ..ops import space
from ..ops.shares import Share, shares
from ..store.listing import Row
from ..store.refs import file_name
from . import output
from .ps import command_text, quoted, status_text

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Mapping, Sequence

    from ..oci.digest import Digest
    from ..ops.df import ImageUse, Sort, Usage
    from ..store.records import Container
    from ..store.refs import RefRecord
    from .host import Host
    from .parser import Parser

_HEADERS = {
    "Type": "TYPE",
    "TotalCount": "TOTAL",
    "Active": "ACTIVE",
    "Size": "SIZE",
    "Reclaimable": "RECLAIMABLE",
}
#: {field: heading} of the tables of -v
_IMAGES = {
    "Repository": "REPOSITORY",
    "Tag": "TAG",
    "ID": "IMAGE ID",
    "CreatedSince": "CREATED",
    "Size": "SIZE",
    "SharedSize": "SHARED SIZE",
    "UniqueSize": "UNIQUE SIZE",
    "Containers": "CONTAINERS",
    "OnDisk": "ON DISK",
    "Frees": "FREES",
    "LastUsed": "LAST USED",
}
_CONTAINERS = {
    "ID": "CONTAINER ID",
    "Image": "IMAGE",
    "Command": "COMMAND",
    "LocalVolumes": "LOCAL VOLUMES",
    "Size": "SIZE",
    "RunningFor": "CREATED",
    "Status": "STATUS",
    "Names": "NAMES",
}
_LEFTOVERS = {"Name": "NAME", "Size": "SIZE"}
_COMMAND_WIDTH = 20  # characters; docker CLI, formatter/container.go
_ABOUT = """\
Sizes are bytes on the disk: compressed blobs, unpacked layers, and what
containers have written. RECLAIMABLE is what goes with prune --all, with system
prune and, for the build cache, with system prune --all. What somebody is
downloading or making at this moment counts as active.

With -v SIZE, SHARED SIZE and UNIQUE SIZE of an image are those of its
uncompressed layers, as in argosy images; ON DISK is what it takes, and FREES
what removing it alone gives back.
"""
_EXAMPLES = """\
fields of --format:
  .Type .TotalCount .Active .Size .Reclaimable
  with -v: .Images .Containers .Volumes .BuildCache .Leftovers .Store

examples:
  argosy df
  argosy system df -v
  argosy df --format '{{.Type}}: {{.Reclaimable}}'
"""


def add_arguments(parser: Parser) -> None:
    parser.explain(_ABOUT, _EXAMPLES)
    add = parser.add_argument
    add("--format", metavar="TEMPLATE", help="json, a Go template, or 'table TEMPLATE' (default: a table)")
    add("-v", "--verbose", action="store_true", help="list each image, container and leftover")


def main(args: Namespace, host: Host) -> int:
    host.enter()  # unpacked layers hold files of users that exist only in our namespace
    inventory = space.look(refs=host.refs, containers=host.containers, blobs=host.blobs, snapshotter=host.snapshotter)
    found = ops.usage(inventory, containers=host.containers, blobs=host.blobs)
    if not args.verbose:
        rows = [_sort(sort) for sort in found.sorts]
        output.show(rows, columns=tuple(_HEADERS), headers=_HEADERS, template=args.format)
    else:
        facts = _facts(found, host)
        output.document(facts, args.format, _text(found, facts))
    for image in inventory.damaged:
        output.warning(f"{image.title} is damaged: what it needs is not known (argosy check)")
    return 0


def _sort(sort: Sort) -> dict[str, str]:
    return {
        "Type": sort.type,
        "TotalCount": str(sort.total),
        "Active": str(sort.active),
        "Size": output.human_size(sort.size),
        "Reclaimable": _part_of(sort),
    }


def _part_of(sort: Sort) -> str:
    """«1.2GB (34%)»; without a share where there is nothing, and of the build cache, as Docker has it."""
    text = output.human_size(sort.reclaimable)
    return text if not sort.size or sort.type == "Build Cache" else f"{text} ({sort.reclaimable * 100 // sort.size}%)"


def _facts(found: Usage, host: Host) -> dict[str, object]:
    """Everything, under the names that Docker has where Docker has it."""
    records = [record for use in found.images for record in use.image.names]
    known = shares(
        records,
        (container for container, _ in found.containers),
        source=host.blobs,
        layer_size=host.layer_size,
    )
    return {
        "Images": [fields for use in found.images for fields in _images(use, known)],
        "Containers": [_container(container, size) for container, size in found.containers],
        "Volumes": [],
        "BuildCache": [],
        "Leftovers": [
            *({"Name": part.path.rpartition("/")[2], "Size": output.human_size(part.size)} for part in found.parts),
            *({"Name": name, "Size": output.human_size(size)} for name, size in found.leftovers),
        ],
        "Store": {
            "Root": host.root,
            "Size": output.human_size(found.size),
            "Free": output.human_size(found.free),
            "Sorts": [_sort(sort) for sort in found.sorts],
        },
    }


def _images(use: ImageUse, known: Mapping[Digest, Share]) -> list[dict[str, str]]:
    """A row a name, as in `images`."""
    image = use.image
    share = known.get(image.image_id)
    fields = {
        "ID": image.image_id.short,
        "Containers": str(len(image.containers)),
        "SharedSize": output.human_size(share.shared) if share else "N/A",
        "UniqueSize": output.human_size(share.unique) if share else "N/A",
        "OnDisk": output.human_size(use.on_disk),
        "LastUsed": _ago(image.last_used),
        "Frees": output.human_size(use.alone),
    }
    nameless = {"Repository": "<none>", "Tag": "<none>", "CreatedSince": "N/A", "CreatedAt": "N/A", "Size": "N/A"}
    return [{**_name(record), **fields} for record in image.names] or [{**nameless, **fields}]


def _name(record: RefRecord) -> dict[str, str]:
    row = Row.of(file_name(record.reference), record)
    return {
        "Repository": row.repository,
        "Tag": row.tag or "<none>",
        "CreatedSince": output.age(record.created),
        "CreatedAt": output.local_time(record.created),
        "Size": output.human_size(record.size),
    }


def _ago(moment: float) -> str:
    return f"{output.human_duration(time.time() - moment)} ago" if moment else "N/A"


def _container(container: Container, size: int) -> dict[str, str]:
    """As `ps` shows it, without what takes no space."""
    command = quoted(output.ellipsis(command_text(container.command), _COMMAND_WIDTH))
    return {
        "ID": container.id[:12],
        "Image": container.image or container.image_id.short,
        "Command": command,
        "LocalVolumes": "0",
        "Size": output.human_size(size),
        "RunningFor": output.age(container.created),
        "CreatedAt": output.local_time(container.created),
        "Status": status_text(container),
        "State": container.status,
        "Names": container.name,
    }


def _text(found: Usage, facts: Mapping[str, Any]) -> str:  # Any: the lists of _facts
    sorts = {sort.type: sort for sort in found.sorts}
    unused = [use for use in found.images if not use.image.containers]
    parts = [
        "Images space usage:\n\n" + _table(_IMAGES, facts["Images"]),
        f"Removing the {len(unused)} image{'s' * (len(unused) != 1)} without a container together frees "
        f"{output.human_size(sorts['Images'].reclaimable)}.\n",
        "Containers space usage:\n\n" + _table(_CONTAINERS, facts["Containers"]),
        "Local Volumes space usage:\n\n" + output.table(("VOLUME NAME", "LINKS", "SIZE"), ()),
        f"Build cache usage: {output.human_size(sorts['Build Cache'].size)}\n",
        "Leftovers space usage:\n\n" + _table(_LEFTOVERS, facts["Leftovers"]),
        f"The store {facts['Store']['Root']} takes {facts['Store']['Size']}; {facts['Store']['Free']} are free.\n",
    ]
    return "\n".join(parts)


def _table(columns: Mapping[str, str], rows: Sequence[Mapping[str, str]]) -> str:
    return output.table(tuple(columns.values()), ([row[name] for name in columns] for row in rows))
