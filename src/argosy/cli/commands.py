"""The verbs as a table: name, module, one line of help.

Static on purpose: `argosy --help` prints it without importing any verb, and a
verb imports itself alone. Nothing here may import more than builtins.
"""

from __future__ import annotations

#: {heading: ((verb, module in argosy.cli, one-line help), …)}, in the order that people read them.
SECTIONS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "Containers": (
        ("run", "run", "Create a container from an image and run a command in it"),
        ("ps", "ps", "List containers"),
        ("rm", "rm", "Remove containers"),
        ("commit", "commit", "Make an image of a container's changes"),
        ("export", "export", "Write a container's files to an archive"),
    ),
    "Images": (
        ("pull", "pull", "Download an image from a registry"),
        ("push", "push", "Upload an image to a registry"),
        ("images", "images", "List images"),
        ("tag", "tag", "Give an image another name"),
        ("rmi", "rmi", "Remove images"),
        ("inspect", "inspect", "Show everything about images and containers"),
        ("history", "history", "Show the layers of an image and how each was made"),
        ("diff", "diff", "Show what is different in another image, or changed in a container"),
        ("du", "du", "Show where the bytes of an image are"),
        ("save", "save", "Write images to an archive"),
        ("load", "load", "Load images from an archive"),
        ("import", "import_", "Make an image of a file system's archive"),
        ("stack", "stack", "Draw the stack of an image or container, from the GPUs up"),
        ("catalog", "catalog", "Build the CUDA platform images and list their releases"),
    ),
    "Registries": (
        ("search", "search", "Search Docker Hub, or a registry, for images"),
        ("tags", "tags", "List the tags of an image in its registry"),
        ("manifest", "manifest", "Look at and compose images of several platforms"),
        ("login", "login", "Log in to a registry"),
        ("logout", "logout", "Log out from a registry"),
        ("registry", "registry", "Serve images to others"),
    ),
    "This machine": (
        ("doctor", "doctor", "Explain what works here and what does not, GPUs first"),
        ("info", "info", "Show the store, the runtime and the kernel features in use"),
        ("check", "check", "Verify everything in the store"),
        ("df", "df", "Show what images, containers and the rest take on the disk"),
        ("prune", "prune", "Remove images without a name and what nothing needs"),
        ("version", "version", "Show versions"),
        ("completion", "completion", "Print the completion script for a shell"),
    ),
}

#: Verbs that have a name in their group only: {«system prune»: (module in argosy.cli, one-line help)}
GROUPED: dict[str, tuple[str, str]] = {
    "image prune": ("image_prune", "Remove images that nothing uses, or their compressed form"),
    "system prune": ("system_prune", "Remove stopped containers, unused images and leftovers"),
}

#: {verb: module in argosy.cli}
VERBS: dict[str, str] = {verb: module for rows in SECTIONS.values() for verb, module, _ in rows}

#: Verbs that no person types.
HIDDEN: dict[str, str] = {"__complete": "complete"}

#: {Docker's management command: {its subcommand: our verb}}, so that both spellings work.
GROUPS: dict[str, dict[str, str]] = {
    "container": {
        "run": "run",
        "ls": "ps",
        "list": "ps",
        "ps": "ps",
        "rm": "rm",
        "commit": "commit",
        "export": "export",
        "inspect": "inspect",
        "diff": "diff",
    },
    "image": {
        "pull": "pull",
        "push": "push",
        "ls": "images",
        "list": "images",
        "tag": "tag",
        "rm": "rmi",
        "inspect": "inspect",
        "history": "history",
        "diff": "diff",
        "du": "du",
        "save": "save",
        "load": "load",
        "import": "import",
        "prune": "image prune",
    },
    "system": {"df": "df", "info": "info", "prune": "system prune"},
}

#: Verbs of Docker's that come with later releases, as docs/docker.md lists them.
LATER = frozenset("build exec logs cp stop kill start create wait attach top stats volume network".split())

#: {command of Docker's that is not there: what does the same}
INSTEAD = {
    "exec": "argosy run starts another program; into a running container none goes yet",
    "logs": "argosy run is in the foreground and prints what the program prints; argosy run … > FILE keeps it",
    "stop": "Ctrl-C or SIGTERM to its argosy run passes the signal on; argosy rm -f kills it",
    "kill": "argosy rm -f kills a container and removes it; kill -TERM the argosy run for a signal",
    "container prune": "argosy system prune, or argosy rm $(argosy ps -aq --filter status=exited)",
    "builder": "argosy system prune --all removes the build cache too; argosy df shows it",
}

#: Verbs whose failure before the container starts exits 125, as `docker run` has it.
BEFORE_START = frozenset({"run"})

#: Verbs that start without msgspec; see store/listing.py.
WITHOUT_MSGSPEC = frozenset({"images", "ps"})

_USAGE = """\
Usage:  argosy [OPTIONS] COMMAND

GPU containers in one Python package: no daemon, root not required
"""

_OPTIONS = """\
Options:
      --root DIR          Keep images and containers in DIR (or $ARGOSY_ROOT)
      --driver-root DIR   Look for the driver in DIR (or $ARGOSY_DRIVER_ROOT)
  -D, --debug             Show what led to an error
  -v, --version           Print the version
      --help              Print this

Run 'argosy COMMAND --help' for more on a command.
"""


def help_text() -> str:
    """What `argosy --help` prints."""
    parts = [_USAGE]
    for heading, rows in SECTIONS.items():
        parts.append(f"{heading}:\n" + "".join(f"  {verb:<12}{line}\n" for verb, _, line in rows))
    return "\n".join((*parts, _OPTIONS))


def help_line(verb: str) -> str:
    """The one line of help of *verb*; empty for a hidden one."""
    if verb in GROUPED:
        return GROUPED[verb][1]
    return next((line for rows in SECTIONS.values() for name, _, line in rows if name == verb), "")
