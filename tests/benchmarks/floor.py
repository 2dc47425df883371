"""The floor of a pull: read each compressed layer, inflate it, hash both streams; nothing else.

    python -I floor.py FILE…     one process a file, as many at once as there are cores

The library and the sizes of its calls are those of argosy/layer/compression.py. It
imports nothing of argosy, so that what it needs is what it says.
"""

from __future__ import annotations

import os
import sys
from hashlib import sha256

_INPUT = 1 << 18  # bytes a read
_OUTPUT = 1 << 20  # bytes a call gives at most


def main(files: list[str]) -> int:
    """Exit status 0 when every layer could be inflated to its end."""
    waiting = sorted(files, key=os.path.getsize)
    running: set[int] = set()
    failed = False
    while waiting or running:
        while waiting and len(running) < (os.cpu_count() or 1):
            running.add(_start(waiting.pop()))
        pid, status = os.wait()
        running.discard(pid)
        failed = failed or status != 0
    return int(failed)


def _start(path: str) -> int:
    pid = os.fork()
    if pid == 0:
        os._exit(0 if inflate(path) else 1)
    return pid


def inflate(path: str) -> bool:
    """Whether *path* is one whole gzip member."""
    from isal import igzip_lib

    decompressor = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
    compressed, uncompressed = sha256(), sha256()
    with open(path, "rb", buffering=0) as stream:
        while not decompressor.eof:
            data = b""
            if decompressor.needs_input:
                data = stream.read(_INPUT)
                if not data:
                    return False
                compressed.update(data)
            uncompressed.update(decompressor.decompress(data, _OUTPUT))
    return bool(compressed.digest() and uncompressed.digest())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
