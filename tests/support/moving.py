"""A program that shows progress as a verb does: `python -m tests.support.moving LAYERS STOP [MODE]`.

All layers wait, then the first four move until the file STOP exists, then all are
done. Before the first byte moves it says on stderr how many threads it has.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

from argosy.cli.host import Host
from argosy.cli.progress import reporter
from argosy.ops.progress import Advanced, Finished, Noted, Started, Waiting, Warned

SIZE = 100_000_000
AT_ONCE = 4
PIECE = 100_000


def name(number: int) -> str:
    return f"{number:012x}"


def main(layers: int, stop: Path, mode: str = "auto") -> None:
    host = Host({}, os.environ)
    names = [name(number) for number in range(layers)]
    print("0: Pulling from team/app", flush=True)
    with reporter(quiet=False, host=host, to_stdout=True, mode=mode) as progress:
        for each in names:
            progress(Waiting(each, SIZE))
        print(f"{threading.active_count()} threads", file=sys.stderr, flush=True)
        for each in names[:AT_ONCE]:
            progress(Started(each, SIZE, "Downloading"))
        while not stop.exists():
            for each in names[:AT_ONCE]:
                progress(Advanced(each, PIECE))
            time.sleep(0.02)
        progress(Warned("something can be changed"))
        progress(Noted("something is good to know"))
        for each in names:
            progress(Finished(each, "Pull complete"))
    print("Status: done", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
