"""Machines that share a store: random verbs side by side, killed at random moments, and what must hold afterwards.

A node is a process with a mount namespace, a name and a boot id of its own, and where the store is on a
restricted file system with a mount of its own. It forks a child for each verb, as quick
as a shell with everything loaded. The same seed gives the same verbs; how they
meet is up to the scheduler.
"""

from __future__ import annotations

import io
import os
import random
import re
import signal
import socket
import sys
import time
import traceback
import uuid
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from argosy import cli
from argosy.errors import Unavailable
from argosy.linux import leases, mounts, syscalls
from argosy.oci import descriptor as media
from argosy.oci.manifest import encode_manifest
from argosy.oci.platform import Platform
from argosy.ops import prune, prune_plan, space
from argosy.ops.progress import silent
from argosy.ops.selection import Selection
from tests.support.forked import in_child
from tests.support.images import Layout, RandomImage, compress, config_json, layer_tar
from tests.support.registry import running_registry
from tests.support.restricted import Limits, restricted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.registry import RunningRegistry

Place = Literal["disk", "refused", "local", "no-links", "cached"]
#: what the file system of each place cannot do; None is the ordinary one
PLACES: dict[Place, Limits | None] = {
    "disk": None,
    "refused": Limits(),
    "local": Limits(locks="local", grain_s=1),
    "no-links": Limits(hard_links=False, locks="unsupported"),
    "cached": Limits(cache_s=1.0),
}
_CLONE_NEWUTS = 0x04000000
TAGS = 4  # of one repository; which image each means changes
LOCAL_NAMES = tuple(f"local{number}:1" for number in range(4))
#: What a verb may say when another has just changed the store under it. Anything else is a fault.
CLEAN = frozenset(
    {
        "content-collected",  # a prune without grace, or rmi, took what a pull or tag was about to name
        "tag-unknown",  # removed by somebody else
        "blob-unknown",  # removed while it was read
        "layer-not-unpacked",
        "image-in-use",
        "id-ambiguous",
        "target-out-of-reach",
        "lease-lost",  # a machine too busy for its leases
    }
)
_CODE = re.compile(r"^error: .*\[([a-z0-9-]+)\]$", re.MULTILINE)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One run of the test."""

    place: Place = "disk"
    nodes: int = 2
    rounds: int = 1
    verbs: int = 25
    seed: int = 1
    #: of a hundred verbs, how many are killed
    killed: int = 40


def shared_images(folder: Path, count: int) -> list[RandomImage]:
    """Images of two to four layers out of five, so that most layers are in several."""
    layout, source = Layout(folder), random.Random("shared")
    tars = [layer_tar(source, 30_000, name=f"layer{number}") for number in range(5)]
    blobs = [layout.put(compress(tar, "gzip"), media.OCI_LAYER_GZIP) for tar in tars]
    images = []
    for number in range(count):
        chosen = sorted(source.sample(range(5), source.randint(2, 4)))
        own = tuple(tars[each] for each in chosen)
        config = config_json(own, Platform.host(), Env=[f"NUMBER={number}"])
        manifest = encode_manifest(layout.put(config, media.OCI_CONFIG), tuple(blobs[each] for each in chosen))
        layout.put(manifest.raw, media.OCI_MANIFEST)
        images.append(RandomImage(layout, manifest, own))
    return images


def run(plan: Plan, folder: Path, told: Callable[[str], None] = lambda text: None) -> None:
    """Do *plan* in the empty *folder*; raises AssertionError at the first thing that does not hold."""
    images = shared_images(folder / "images", 6)
    with running_registry(folder / "registry", expected_stderr=None) as registry:
        for number in range(plan.rounds):
            for tag, image in enumerate(random.Random(f"{plan.seed} {number}").sample(images, TAGS)):
                registry.push(image, "team/app", str(tag))
            _round(plan, number, folder, registry.address)
            _judge(plan, folder, registry, images)
            told(f"round {number + 1} of {plan.rounds} on {plan.place}: sound")


def _round(plan: Plan, number: int, folder: Path, address: str) -> None:
    """All nodes at work at once, until each has done its verbs."""
    pids = []
    for node in range(plan.nodes):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                _be_node(plan, folder, address, f"{plan.seed} {number} {node}", node)
                status = 0
            except BaseException:
                (folder / f"fault-{number}-{node}").write_text(traceback.format_exc())
            finally:
                os._exit(status)
        pids.append(pid)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    faults = [path.read_text() for path in sorted(folder.glob("fault-*"))]
    assert (statuses, faults) == ([0] * plan.nodes, []), f"{plan}, round {number}\n" + "\n".join(faults)


def _be_node(plan: Plan, folder: Path, address: str, seed: str, node: int) -> None:
    dice = random.Random(seed)
    mounts.private_namespace(propagation=syscalls.MS_PRIVATE)
    _be_machine(folder, f"node{node}")
    with mounted(plan, folder, f"node{node}") as root:
        for turn in range(plan.verbs):
            verb = _verb(dice, root, address)
            deadline_s = dice.expovariate(1 / 0.05) if dice.randrange(100) < plan.killed else None
            _do(verb, folder / f"fault-{node}-{turn}", deadline_s)
        _tidy(root)


def _be_machine(folder: Path, name: str) -> None:
    """For the calling process: a name, and a boot id that no other node has."""
    syscalls.unshare(_CLONE_NEWUTS)
    socket.sethostname(name)
    boot = folder / f"boot-{name}"
    boot.write_text(f"{uuid.uuid5(uuid.NAMESPACE_DNS, name)}\n")
    mounts.Bind(source=str(boot), target="/proc/sys/kernel/random/boot_id").execute()


def _tidy(root: Path) -> None:
    """Give up the leases of this node's dead, of whom no other can know."""
    for folder in (root / "ingest", root / "tmp"):
        for name in os.listdir(folder) if folder.exists() else ():
            if name.endswith(leases.SUFFIX):
                with suppress(Unavailable):
                    leases.take(folder / name.removesuffix(leases.SUFFIX), timeout_s=1).release()


@contextmanager
def mounted(plan: Plan, folder: Path, name: str) -> Iterator[Path]:
    """The store as one machine sees it."""
    limits = PLACES[plan.place]
    leases.DRAIN_S, leases.RENEW_S = 0.5, 1.0  # the servers are on this machine
    leases.EXPIRY_S = 4.0 if plan.place == "no-links" else 15.0  # there a death while making a lease costs as much
    with ExitStack() as stack:
        if limits is None:
            (folder / "disk").mkdir(exist_ok=True)
            yield folder / "disk"
        else:
            yield stack.enter_context(restricted(folder / "disk", folder / name, limits))


def _verb(dice: random.Random, root: Path, address: str) -> Callable[[], int]:
    remote = f"{address}/team/app:{dice.randrange(TAGS)}"
    mine, other = dice.choice(LOCAL_NAMES), dice.choice((*LOCAL_NAMES, remote))
    words = dice.choice(
        (
            *[("pull", "-q", remote)] * 6,
            *[("tag", other, mine)] * 4,
            *[("rmi", other)] * 2,
            ("rmi", "-f", other),
            ("prune", "-f"),
            ("prune", "-af"),
            ("system", "prune", "-f", "--target", "200kB"),
            *[("image", "prune", "-f", "--compressed")] * 2,
            ("df",),
            ("check",),
            ("images",),
            ("prune without grace",),
        )
    )
    if words == ("prune without grace",):
        return lambda: _prune_at_once(root, unused=dice.random() < 0.3)
    return lambda: cli.main(["--debug", "--root", str(root), *words])


def _prune_at_once(root: Path, *, unused: bool) -> int:
    from argosy.cli.host import Host

    host = Host({"root": str(root)})
    refs, containers, blobs, snapshotter = host.refs, host.containers, host.blobs, host.snapshotter
    found = space.look(refs=refs, containers=containers, blobs=blobs, snapshotter=snapshotter)
    inventory = msgspec.structs.replace(found, before_ns=time.time_ns())
    scope = prune.Scope(all_images=unused, leftovers=True)
    supply = prune.supply(inventory, scope, Selection(), refs=refs, containers=containers, blobs=blobs)
    prune.execute(
        prune_plan.everything(supply, inventory),
        refs=refs,
        containers=containers,
        blobs=blobs,
        snapshotter=snapshotter,
        runtime=host.ready_runtime,
    )
    return 0


def _do(verb: Callable[[], int], fault: Path, deadline_s: float | None) -> None:
    """The verb in a child, killed after *deadline_s*; what it should not have said goes into *fault*."""
    pid = os.fork()
    if pid == 0:
        out, err = io.StringIO(), io.StringIO()
        try:
            with redirect_stdout(out), redirect_stderr(err):
                status = verb()
            codes = set(_CODE.findall(err.getvalue()))
            if status and not (codes and codes <= CLEAN):
                fault.write_text(f"status {status}\n{out.getvalue()}\n{err.getvalue()}")
        except BaseException:
            fault.write_text(traceback.format_exc() + err.getvalue())
        finally:
            os._exit(0)
    if deadline_s is not None:
        time.sleep(deadline_s)
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _judge(plan: Plan, folder: Path, registry: RunningRegistry, images: list[RandomImage]) -> None:
    """What must hold when all is quiet, as a machine sees it that was not there."""
    address = registry.address

    def look() -> None:
        mounts.private_namespace(propagation=syscalls.MS_PRIVATE)
        _be_machine(folder, "judge")
        with mounted(plan, folder, "judge") as root:
            known = {image.descriptor.digest: image for image in images}
            _require_whole(root, known)
            for tag in range(TAGS):
                assert cli.main(["--root", str(root), "pull", "-q", f"{address}/team/app:{tag}"]) == 0, "a pull failed"
            _require_whole(root, known)

    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        in_child(look)


def _require_whole(root: Path, known: dict[str, RandomImage]) -> None:
    """Nothing is damaged, every name leads to an image of ours, and every blob and layer of it is there or can be."""
    from argosy.cli.host import Host
    from argosy.oci.image import Image
    from argosy.ops.check import Store, check
    from argosy.ops.unpack import ensure_layers

    host = Host({"root": str(root)})
    store = Store(
        refs=host.refs, lists=host.lists, containers=host.containers, blobs=host.blobs, snapshotter=host.snapshotter
    )
    report = check(store)
    assert report.findings == (), report.findings
    content = host.whole("an image", silent)  # with what was dropped
    for record in host.refs.list():
        image = known[record.descriptor.digest]
        for descriptor, raw in image.blobs():
            with content.open(descriptor) as stream:
                assert stream.read() == raw
        ensure_layers(Image(record.manifest, host.blobs), snapshotter=host.snapshotter, blobs=host.blobs)
        for diff_id in image.diff_ids:
            host.snapshotter.verify(diff_id)


def main(argv: list[str]) -> int:
    import argparse
    import tempfile

    parser = argparse.ArgumentParser(prog="python -m tests.faults two_nodes", description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--verbs", type=int, default=25)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--killed", type=int, default=40)
    parser.add_argument("--place", choices=PLACES, action="append")
    args = parser.parse_args(argv)
    for place in args.place or PLACES:
        plan = Plan(
            place=place, nodes=args.nodes, rounds=args.rounds, verbs=args.verbs, seed=args.seed, killed=args.killed
        )
        print(plan, flush=True)
        with tempfile.TemporaryDirectory(prefix="argosy-nodes-") as folder:
            run(plan, Path(folder), lambda text: print(text, flush=True))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
