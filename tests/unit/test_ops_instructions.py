"""--change as Docker takes it: what it gives was taken from `docker import -c` of Docker 20.10, except STOPSIGNAL."""

from __future__ import annotations

import json

import pytest

from argosy.errors import InvalidInput
from argosy.oci.config import ImageConfig
from argosy.oci.platform import Platform
from argosy.ops.instructions import changed

SCRATCH = ImageConfig.scratch(Platform(os="linux", architecture="amd64"))


def execution(*changes: str, base: ImageConfig = SCRATCH) -> dict[str, object]:
    found = json.loads(changed(base, changes).raw)["config"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("WORKDIR a b", {"WorkingDir": "/a b"}),
        ("WORKDIR ../../x", {"WorkingDir": "/x"}),
        ("WORKDIR $HOME/x", {"WorkingDir": "/x"}),
        ("USER x:y", {"User": "x:y"}),
        ('USER ""', {"User": ""}),
        ('VOLUME ["/a","/b c"]', {"Volumes": {"/a": {}, "/b c": {}}}),
        ("VOLUME /a /b", {"Volumes": {"/a": {}, "/b": {}}}),
        (
            "EXPOSE 80-82/udp 99",
            {"ExposedPorts": {"80/udp": {}, "81/udp": {}, "82/udp": {}, "99/tcp": {}}},
        ),
        (
            "HEALTHCHECK --interval=1m30s CMD curl x",
            {"Healthcheck": {"Test": ["CMD-SHELL", "curl x"], "Interval": 90_000_000_000}},
        ),
        (
            "HEALTHCHECK --retries=3 --start-period=1.5s --timeout=2ms CMD x y",
            {
                "Healthcheck": {
                    "Test": ["CMD-SHELL", "x y"],
                    "StartPeriod": 1_500_000_000,
                    "Timeout": 2_000_000,
                    "Retries": 3,
                }
            },
        ),
        ('HEALTHCHECK CMD ["a","b"]', {"Healthcheck": {"Test": ["CMD", "a", "b"]}}),
        ("HEALTHCHECK NONE", {"Healthcheck": {"Test": ["NONE"]}}),
        ("ONBUILD RUN x $y", {"OnBuild": ["RUN x $y"]}),
        ("STOPSIGNAL SIGRTMIN+3", {"StopSignal": "SIGRTMIN+3"}),
        ("STOPSIGNAL 15", {"StopSignal": "15"}),
        ("LABEL a b c", {"Labels": {"a": "b c"}}),
        ('LABEL "a b"=c\\ d', {"Labels": {"a b": "c d"}}),
        ("LABEL x=$NOPE", {"Labels": {"x": ""}}),
        ("ENV a b  c", {"Env": ["a=b  c"]}),
        ('ENV A="x\\"y" B=\'$C\'', {"Env": ['A=x"y', "B=$C"]}),
        ("ENV A=B=C D=", {"Env": ["A=B=C", "D="]}),
        ("ENV X=${Y:-def} Z=${X:+alt}", {"Env": ["X=def", "Z="]}),
        ("ENV \\$A=1", {"Env": ["$A=1"]}),
        ('CMD ["a", "b"]', {"Cmd": ["a", "b"]}),
        ('CMD ["a" "b"]', {"Cmd": ["/bin/sh", "-c", '["a" "b"]']}),
        ("cmd x  $y", {"Cmd": ["/bin/sh", "-c", "x  $y"]}),
        ("CMD []", {"Cmd": []}),
        ("CMD a\nENV B=1 \\\n  C=2\n# no more", {"Cmd": ["/bin/sh", "-c", "a"], "Env": ["B=1", "C=2"]}),
    ],
)
def test_an_instruction_changes_the_config(change: str, expected: dict[str, object]) -> None:
    assert execution(change) == expected


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("FROM x", "in 'FROM x'"),
        ('SHELL ["a"]', "in 'SHELL"),
        ("CMD", "it has no argument"),
        ("CMD [1,2]", "a JSON list here has strings alone"),
        ("ONBUILD FROM x", "FROM cannot be a trigger"),
        ("ONBUILD ONBUILD RUN x", "ONBUILD cannot be a trigger"),
        ("ENV a", "ENV takes NAME=VALUE"),
        ("ENV =x", "'=x' is not NAME=VALUE"),
        ("ENV a=1 b", "'b' is not NAME=VALUE"),
        ('ENV a="b', 'a " is not closed'),
        ("EXPOSE abc", "'abc' is no port"),
        ("EXPOSE 70000", "'70000' is no port"),
        ("EXPOSE 82-80", "'82-80' is no port"),
        ("VOLUME []", "a path is empty"),
        ("STOPSIGNAL SIGFOO", "there is no signal 'SIGFOO'"),
        ("HEALTHCHECK curl", "it is NONE, or CMD and a program"),
        ("HEALTHCHECK --often=1s CMD x", "options are --interval="),
        ("HEALTHCHECK --interval=1 CMD x", "'1' is no duration"),
        ("HEALTHCHECK --retries=0 CMD x", "it is a number, at least 1"),
        ('CMD ["a\\u0000b"]', "a NUL character"),
        ("ENV A=\udcff", "it is not UTF-8"),
    ],
)
def test_what_is_no_change_is_refused(change: str, why: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        changed(SCRATCH, [change])
    assert caught.value.code == "change-invalid"
    assert why in caught.value.context


def test_changes_build_on_the_image_and_on_each_other() -> None:
    base = SCRATCH.with_(
        execution={
            "Env": ["PATH=/bin", "A=1"],
            "Cmd": ["old"],
            "Labels": {"kept": "yes"},
            "WorkingDir": "/srv",
            "Shell": ["/bin/bash", "-o", "pipefail", "-c"],
            "ExposedPorts": {"1/tcp": {}},
        }
    )
    changes = ["ENV PATH=$PATH:/opt B=${A}2", "LABEL new=$B", "WORKDIR app", "EXPOSE 2", "CMD run | tee", "VOLUME $A"]
    assert execution(*changes, base=base) == {
        "Env": ["PATH=/bin:/opt", "A=1", "B=12"],
        "Cmd": ["/bin/bash", "-o", "pipefail", "-c", "run | tee"],
        "Labels": {"kept": "yes", "new": "12"},
        "WorkingDir": "/srv/app",
        "Shell": ["/bin/bash", "-o", "pipefail", "-c"],
        "ExposedPorts": {"1/tcp": {}, "2/tcp": {}},
        "Volumes": {"1": {}},
    }


def test_an_entry_point_takes_the_command_of_another_away() -> None:
    base = SCRATCH.with_(execution={"Cmd": ["old"]})
    assert execution('ENTRYPOINT ["x"]', base=base) == {"Entrypoint": ["x"]}
    assert execution('ENTRYPOINT ["x"]', "CMD y", base=base) == {"Entrypoint": ["x"], "Cmd": ["/bin/sh", "-c", "y"]}


def test_without_changes_the_config_keeps_its_bytes() -> None:
    assert changed(SCRATCH, []) is SCRATCH
    assert changed(SCRATCH, ["", "# nothing"]) is SCRATCH
