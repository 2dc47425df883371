"""Templates of --format: what Go and the docker CLI make of the same text."""

from __future__ import annotations

from typing import Any

import pytest

from argosy.cli import output
from argosy.cli.template import Template, unescaped
from argosy.errors import InvalidInput

LABELS = {"com.example.build-date": "2026", "tier": "web"}
ROW: dict[str, Any] = {
    "ID": "1f2e3d",
    "Names": "web",
    "Labels": LABELS,
    "Ports": ["80/tcp", "443/tcp"],
    "Count": 3,
    "Ratio": 1.5,
    "Whole": 2.0,
    "Up": True,
    "Down": False,
    "Nothing": None,
    "Empty": "",
    "Nested": {"Config": {"Env": ["A=1", "B=2"], "Cmd": None}},
    "Label": lambda name: LABELS.get(name, ""),
}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        # text and fields
        ("plain text", "plain text"),
        ("{{.ID}}", "1f2e3d"),
        ("{{.ID}}: {{.Names}}!", "1f2e3d: web!"),
        ("{{ .Nested.Config.Env }}", "[A=1 B=2]"),
        ("{{.Labels}}", "map[com.example.build-date:2026 tier:web]"),
        ("{{.Labels.tier}}", "web"),
        ("{{.Labels.absent}}", "<no value>"),
        ("{{.Nothing}}", "<no value>"),
        ("{{.Nested}}", "map[Config:map[Cmd:<nil> Env:[A=1 B=2]]]"),
        ("{{.Up}} {{.Count}} {{.Ratio}} {{.Whole}}", "true 3 1.5 2"),
        ("{{(.Nested).Config.Env}}", "[A=1 B=2]"),
        ("{{.}}", None),
        # methods and functions
        ('{{.Label "tier"}}', "web"),
        ('{{.Label "absent"}}', ""),
        ('{{index .Labels "com.example.build-date"}}', "2026"),
        ('{{index .Labels "absent"}}', ""),
        ("{{index .Ports 1}}", "443/tcp"),
        ('{{index .Nested.Config "Env" 0}}', "A=1"),
        ("{{len .Ports}} {{len .ID}} {{len .Labels}}", "2 6 2"),
        ("{{slice .ID 1 3}} {{slice .ID 4}}", "f2 3d"),
        ("{{upper .Names}} {{lower `ABC`}} {{title `hello big world`}}", "WEB abc Hello Big World"),
        ("{{truncate .ID 3}}|{{truncate .ID 99}}", "1f2|1f2e3d"),
        ("[{{pad .Names 1 2}}] [{{pad .Empty 1 2}}]", "[ web  ] []"),
        ('{{join .Ports ", "}}', "80/tcp, 443/tcp"),
        ('{{index (split "a:b:c" ":") 2}}', "c"),
        ("{{json .Ports}} {{json .Names}} {{json .Up}} {{json .Nothing}}", '["80/tcp","443/tcp"] "web" true null'),
        ("{{json .Nested}}", '{"Config":{"Env":["A=1","B=2"],"Cmd":null}}'),
        # pipelines
        ("{{.Names | upper}}", "WEB"),
        ("{{.Names | printf `%s-%s` .ID}}", "1f2e3d-web"),
        ("{{.Ports | json | len}}", "20"),
        ("{{(.Names | upper) | lower}}", "web"),
        # printf and friends
        ("{{printf `%-8s|%8s|` .Names .Names}}", "web     |     web|"),
        ("{{printf `%05d %x %X %o %b %+d` 42 255 255 8 5 7}}", "00042 ff FF 10 101 +7"),
        ("{{printf `%.2f %q %v %t %%` .Ratio .Names .Ports .Up}}", '1.50 "web" [80/tcp 443/tcp] true %'),
        ("{{printf `%c%.2s` 65 .ID}}", "A1f"),
        ('{{print "a" 1 2 "b"}}', "a1 2b"),
        ('{{println "a" 1}}', "a 1\n"),
        # decisions
        ("{{if .Up}}yes{{else}}no{{end}}", "yes"),
        ("{{if .Down}}yes{{else}}no{{end}}", "no"),
        ("{{if .Empty}}a{{else if .Nothing}}b{{else if .Ports}}c{{else}}d{{end}}", "c"),
        ('{{if eq .Names "db" "web"}}known{{end}}', "known"),
        ('{{if ne .Names "db"}}other{{end}}', "other"),
        ("{{if and .Up (gt .Count 2) (le .Count 3) (lt 1 2) (ge 2 2)}}all{{end}}", "all"),
        ('{{or .Empty .Nothing "fallback"}}', "fallback"),
        ("{{and .Empty .Names}}|{{not .Up}}", "|false"),
        ("{{with .Nothing}}some{{else}}none{{end}}", "none"),
        ("{{with .Nested.Config}}{{index .Env 0}}{{end}} {{.Names}}", "A=1 web"),
        ("{{with .Nothing}}a{{else with .Names}}{{.}}{{end}}", "web"),
        # loops and variables
        ("{{range .Ports}}<{{.}}>{{end}}", "<80/tcp><443/tcp>"),
        ("{{range $i, $p := .Ports}}{{$i}}={{$p}} {{end}}", "0=80/tcp 1=443/tcp "),
        ("{{range $p := .Ports}}{{$p}};{{end}}", "80/tcp;443/tcp;"),
        ("{{range $k, $v := .Labels}}{{$k}}={{$v}},{{end}}", "com.example.build-date=2026,tier=web,"),
        ("{{range .Nothing}}x{{else}}empty{{end}}", "empty"),
        ("{{range .Ports}}{{$.Names}} {{end}}", "web web "),
        ("{{$n := 0}}{{range .Ports}}{{$n = .}}{{end}}{{$n}}", "443/tcp"),
        ("{{$x := .Names}}{{with $y := .ID}}{{$x}}{{$y}}{{end}}", "web1f2e3d"),
        # blanks and comments
        ("a {{- .Names -}} b", "awebb"),
        ("a{{/* nothing */}}b", "ab"),
        ("a {{- /* nothing */ -}} b", "ab"),
        ("{{.Names\n}}", "web"),
        # literals
        (r'{{"tab\tquote\"é\x41"}}', 'tab\tquote"éA'),
        ("{{`raw\\n`}}", "raw\\n"),
        ("{{'A'}} {{0x1f}} {{-5}} {{1.5}} {{1e3}} {{1_000}} {{true}} {{false}}", "65 31 -5 1.5 1000 1000 true false"),
    ],
)
def test_a_template_gives_what_docker_prints(template: str, expected: str | None) -> None:
    rendered = Template(template).render(ROW)
    if expected is not None:
        assert rendered == expected


@pytest.mark.parametrize(
    ("template", "why", "column"),
    [
        ("{{.Nmaes}}", "there is no field .Nmaes (did you mean Names?)", 2),
        ("x {{.Names.First}}", "a text has no field .First", 10),
        ("{{", "this {{ is never closed", 0),
        ("a {{.ID", "this {{ is never closed", 2),
        ("{{}}", "the action is empty", 0),
        ("{{uper .ID}}", "there is no function 'uper' (did you mean upper?)", 2),
        ("{{if .Up}}x", "if without end", 2),
        ("{{end}}", "end without if, range or with", 2),
        ("{{else}}", "else without if, range or with", 2),
        ("{{if .Up}}{{else}}{{else}}{{end}}", "a second else", 20),
        ("{{if}}{{end}}", "a value is missing", 4),
        ("{{.ID | }}", "a value is missing", 7),
        ("{{(.ID}}", "this bracket is never closed", 2),
        ("{{.ID)}}", "unexpected ')'", 5),
        ("{{.ID ?}}", "unexpected '?'", 6),
        ('{{"open}}', "unexpected '\"'", 2),
        ("{{$unknown}}", "undefined variable $unknown", 2),
        ("{{if .Up}}{{$x := 1}}{{end}}{{$x}}", "undefined variable $x", 30),
        ("{{template `x`}}", "template is not supported", 2),
        ("{{range .Names}}{{end}}", "range needs a list or a map", 2),
        ("{{.Names `x`}}", ".Names takes no arguments", 2),
        ("{{eq .Count `3`}}", "eq: a number and a text cannot be compared", 2),
        ("{{lt .Ports .Ports}}", "lt: a list cannot be compared", 2),
        ("{{lt .Up .Up}}", "lt: a truth value has no order", 2),
        ("{{index .Ports 9}}", "index: index 9 is out of range, there are 2", 2),
        ("{{slice .ID 4 2}}", "slice: 4:2 is out of range, there are 6", 2),
        ("{{len 3}}", "len: a number has no length", 2),
        ("{{printf `%d` .Names}}", "printf: %d does not fit a text", 2),
        ("{{printf `%s`}}", "printf: no value is left for %s", 2),
        ("{{printf `x` 1}}", "printf: 1 values too many", 2),
        ("{{printf `%99999d` 1}}", "printf: %99999d is too wide", 2),
        ("{{upper 3}}", "upper: a number is no text", 2),
        ("{{upper}}", "upper does not take these 0 values", 2),
        ("{{and}}", "and needs a value", 2),
        (r'{{"\q"}}', "unknown escape \\q", 2),
        ("{{'ab'}}", "'ab' is not one character", 2),
        ("{{/* c */ .ID}}", "a comment stands alone in its action", 10),
        ("{{.ID .Names", "this {{ is never closed", 0),
        ("{{" + "(" * 60 + "1" + ")" * 60 + "}}", "more than 50 levels deep", 52),
    ],
)
def test_a_faulty_template_is_shown_with_the_place_of_the_fault(template: str, why: str, column: int) -> None:
    with pytest.raises(InvalidInput) as caught:
        Template(template).render(ROW)
    assert (caught.value.code, caught.value.message) == ("template-invalid", f"bad template for --format: {why}")
    assert caught.value.context == f"{template}\n{' ' * column}^"


def test_the_place_of_a_fault_is_shown_within_its_line() -> None:
    with pytest.raises(InvalidInput) as caught:
        Template("{{.ID}}\n  {{.Nope}}\n{{.ID}}").render(ROW)
    assert caught.value.context == "  {{.Nope}}\n    ^"


def test_escapes_of_the_command_line_become_characters() -> None:
    assert unescaped(r" {{.ID}}\t{{.Names}}\n ") == "{{.ID}}\t{{.Names}}\n"


HEADERS = {"ID": "CONTAINER ID", "Names": "NAMES", "Ports": "PORTS"}
ROWS: list[output.Row] = [
    {"ID": "1f2e3d", "Names": "web", "Ports": "80/tcp", "Label": lambda name: LABELS.get(name, "")},
    {"ID": "4c5b6a", "Names": "a-longer-name", "Ports": "", "Label": lambda name: ""},
]


@pytest.mark.parametrize(
    ("template", "quiet", "expected"),
    [
        (None, None, "CONTAINER ID   NAMES\n1f2e3d         web\n4c5b6a         a-longer-name\n"),
        ("table", None, "CONTAINER ID   NAMES\n1f2e3d         web\n4c5b6a         a-longer-name\n"),
        (None, "ID", "1f2e3d\n4c5b6a\n"),
        ("{{.Names}}", "ID", "web\na-longer-name\n"),
        (
            r"table {{.Names}}\t{{.ID}}",
            None,
            "NAMES           CONTAINER ID\nweb             1f2e3d\na-longer-name   4c5b6a\n",
        ),
        ("table {{upper .Names}}: {{.ID}}", None, "NAMES: CONTAINER ID\nWEB: 1f2e3d\nA-LONGER-NAME: 4c5b6a\n"),
        (
            r'table {{.ID}}\t{{.Label "com.example.build-date"}}',
            None,
            "CONTAINER ID   build date\n1f2e3d         2026\n4c5b6a         \n",
        ),
        (r"{{.ID}}\t{{.Names}}", None, "1f2e3d\tweb\n4c5b6a\ta-longer-name\n"),
        (
            "json",
            None,
            '{"ID":"1f2e3d","Names":"web","Ports":"80/tcp"}\n{"ID":"4c5b6a","Names":"a-longer-name","Ports":""}\n',
        ),
        (
            "{{json .}}",
            None,
            '{"ID":"1f2e3d","Names":"web","Ports":"80/tcp"}\n{"ID":"4c5b6a","Names":"a-longer-name","Ports":""}\n',
        ),
    ],
)
def test_rows_are_shown_as_format_and_quiet_ask(
    template: str | None, quiet: str | None, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output.show(ROWS, columns=("ID", "Names"), headers=HEADERS, template=template, quiet=quiet)
    assert capsys.readouterr().out == expected
