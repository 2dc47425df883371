"""Subordinate ids and mappings as values, and why a namespace may be refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from argosy.errors import InvalidInput
from argosy.linux import userns
from argosy.linux.userns import IdMap, IdRange

if TYPE_CHECKING:
    from pathlib import Path


def test_ranges_are_found_by_name_and_by_number(tmp_path: Path) -> None:
    path = tmp_path / "subuid"
    path.write_text("ann:100000:65536\nbob:1:2\n1000:300000:10\n\n# ann:7:7\nann:400000:0\n")
    assert userns.subordinate_ranges(str(path), 1000, "ann") == (
        IdRange(start=100000, count=65536),
        IdRange(start=300000, count=10),
    )
    assert userns.subordinate_ranges(str(path), 7, None) == ()
    assert userns.subordinate_ranges(str(tmp_path / "absent"), 7, None) == ()


@pytest.mark.parametrize("line", ["ann:1", "ann:one:2", "ann:1:2:3", "ann:"])
def test_a_bad_line_is_named_only_when_it_is_ours(tmp_path: Path, line: str) -> None:
    path = tmp_path / "subuid"
    path.write_text(f"bob:1:2\n{line}\n")
    assert userns.subordinate_ranges(str(path), 5, "bob") == (IdRange(start=1, count=2),)
    with pytest.raises(InvalidInput) as caught:
        userns.subordinate_ranges(str(path), 5, "ann")
    assert (caught.value.code, caught.value.message) == ("bad-subid-line", f"{path} has a bad line 2")


def test_root_inside_is_the_user_and_the_ranges_follow() -> None:
    mapping = userns.mapping_for(1000, 100, [IdRange(start=5000, count=3), IdRange(start=9000, count=2)], ())
    assert mapping.uids == (
        IdMap(inside=0, outside=1000),
        IdMap(inside=1, outside=5000, count=3),
        IdMap(inside=4, outside=9000, count=2),
    )
    assert (mapping.is_single, userns.mapping_for(1, 1, (), ()).is_single) == (False, True)
    assert [mapping.host_uid(uid) for uid in range(7)] == [1000, 5000, 5001, 5002, 9000, 9001, None]
    assert [mapping.host_gid(gid) for gid in range(2)] == [100, None]


@pytest.mark.parametrize(
    ("name", "value", "start"),
    [
        ("kernel/apparmor_restrict_unprivileged_userns", "1\n", "AppArmor allows user namespaces to profiled programs"),
        ("kernel/unprivileged_userns_clone", "0\n", "user namespaces are reserved for root"),
        ("user/max_user_namespaces", "0\n", "the number of user namespaces is limited to none"),
    ],
)
def test_a_forbidding_setting_is_named_with_its_remedy(tmp_path: Path, name: str, value: str, start: str) -> None:
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_text(value)
    reason, hint = userns.explain_refusal(str(tmp_path))
    sysctl = name.replace("/", ".")
    assert reason.startswith(start)
    assert reason.endswith(f"({sysctl} = {value.strip()})")
    assert hint.startswith(f"as administrator: sysctl -w {sysctl}=")


def test_settings_that_allow_explain_nothing(tmp_path: Path) -> None:
    (tmp_path / "user").mkdir()
    (tmp_path / "user" / "max_user_namespaces").write_text("100\n")
    assert userns.explain_refusal(str(tmp_path)) == ("", "")


@pytest.mark.parametrize(
    ("line", "elsewhere"),
    [("subid: sss", True), ("subid: files", False), ("passwd: files sss", False), ("subid:", False)],
)
def test_ids_may_come_from_a_directory(tmp_path: Path, line: str, elsewhere: bool) -> None:
    (tmp_path / "nsswitch.conf").write_text(f"# comment\n{line}\n")
    assert userns._has_directory_of_ids(str(tmp_path / "nsswitch.conf")) is elsewhere
    assert not userns._has_directory_of_ids(str(tmp_path / "absent"))
