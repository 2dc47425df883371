"""The filter from the cache is the filter that would be made, whatever happened to the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from argosy.bundle.defaults import CAPABILITIES
from argosy.linux import seccomp
from argosy.linux.seccomp_cache import filter_for
from argosy.oci.platform import Platform

if TYPE_CHECKING:
    from pathlib import Path

ARCHITECTURE = Platform.host().architecture


def test_a_cached_filter_is_the_one_that_was_made(tmp_path: Path) -> None:
    made = filter_for(CAPABILITIES, ARCHITECTURE, str(tmp_path))
    assert msgspec.json.decode(made.profile) == seccomp.profile_for(CAPABILITIES, ARCHITECTURE)
    assert made.program == seccomp.compiled(seccomp.profile_for(CAPABILITIES, ARCHITECTURE), str(tmp_path))
    assert filter_for(CAPABILITIES, ARCHITECTURE, str(tmp_path)) == made


def test_other_capabilities_have_another_filter(tmp_path: Path) -> None:
    few = filter_for(CAPABILITIES, ARCHITECTURE, str(tmp_path))
    more = filter_for((*CAPABILITIES, "CAP_SYS_ADMIN"), ARCHITECTURE, str(tmp_path))
    assert few.profile != more.profile
    assert few.program != more.program


def test_a_damaged_cache_is_made_again(tmp_path: Path) -> None:
    made = filter_for(CAPABILITIES, ARCHITECTURE, str(tmp_path))
    (path,) = tmp_path.glob("filter-*.json")
    good = path.read_bytes()
    for bad in (b"", b"{}", good[:-1], good.replace(b"ALLOW", b"ERRNO", 1), good[100:]):
        path.write_bytes(bad)
        assert filter_for(CAPABILITIES, ARCHITECTURE, str(tmp_path)) == made
        assert path.read_bytes() == good
