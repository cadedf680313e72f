"""`--check` and `--call`, through the command line."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest

from builder.cli.main import main
from builder.cli.world import World
from builder.errors import Location
from builder.events import Warned
from builder.progress import picture
from builder.progress.board import Board

DOCKERFILE = """\
# VERSION which version to build
ARG VERSION=1.2
ARG TAG=v${VERSION}
ARG UNUSED=1

# base has the tools
FROM scratch AS base
# DIR where files go
ARG DIR=/opt/${TAG} FLAVOUR

# app is the application
FROM base AS app
ARG TAG
ARG TARGETOS

FROM scratch
ARG VERSION
"""


class Told:
    """What a command line ended with."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status = status
        self.out = out
        self.err = err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def tell(folder: Path, dockerfile: str, *arguments: str, **files: str) -> Told:
    """Run `pybuild build` with a Dockerfile in a folder."""
    context = folder / "context"
    context.mkdir(exist_ok=True)
    for name, text in {"Dockerfile": dockerfile, **files}.items():
        (context / name).write_text(text)
    out, err = io.StringIO(), io.StringIO()
    world = World({"HOME": str(folder)}, out, err)
    status = main(["build", f"--root={folder / 'store'}", *arguments, str(context)], world)
    return Told(status, out.getvalue(), err.getvalue())


def test_a_check_without_findings_ends_well(tmp_path: Path) -> None:
    told = tell(tmp_path, "FROM scratch\n", "--check")

    assert (told.status, told.out, told.err) == (0, "Check complete, no warnings found.\n", "")


def test_a_check_shows_each_finding_with_its_lines_and_ends_with_1(tmp_path: Path) -> None:
    told = tell(tmp_path, "FROM scratch AS Base\nCMD run\n", "--check")

    assert told.status == 1
    assert told.out == (
        "Check complete, 2 warnings found.\n"
        "\n"
        "WARNING: StageNameCasing - https://docs.docker.com/go/dockerfile/rule/stage-name-casing/\n"
        "stage name 'Base' should be in lower case\n"
        "Dockerfile:1\n"
        "--------------------\n"
        "   1 | >>> FROM scratch AS Base\n"
        "     |                     ^^^^\n"
        "   2 |     CMD run\n"
        "--------------------\n"
        "\n"
        "WARNING: JSONArgsRecommended - https://docs.docker.com/go/dockerfile/rule/json-args-recommended/\n"
        "CMD should have its words as a JSON list\n"
        "Dockerfile:2\n"
        "--------------------\n"
        "   1 |     FROM scratch AS Base\n"
        "   2 | >>> CMD run\n"
        "     |         ^^^\n"
        "--------------------\n"
    )


def test_a_check_builds_nothing(tmp_path: Path) -> None:
    told = tell(tmp_path, "FROM scratch\nCOPY missing /\nRUN false\n", "--call=check", "-t", "app")

    assert told.status == 0
    assert not (tmp_path / "store" / "images" / "index.json").exists()


def test_a_check_covers_all_stages_or_those_that_a_target_needs(tmp_path: Path) -> None:
    dockerfile = "FROM scratch AS a\nENV A 1\nFROM scratch AS b\nENV B 1\n"

    all_stages = tell(tmp_path, dockerfile, "--call=check,format=json").json
    one_stage = tell(tmp_path, dockerfile, "--call=check,format=json", "--target=a").json

    assert [warning["location"]["ranges"][0]["start"]["line"] for warning in all_stages["warnings"]] == [2, 4]
    assert [warning["location"]["ranges"][0]["start"]["line"] for warning in one_stage["warnings"]] == [2]


def test_the_document_of_a_check_has_buildkits_form(tmp_path: Path) -> None:
    text = "FROM scratch\nLABEL a \\\n  b\n"

    told = tell(tmp_path, text, "--check", "--call=check,format=json")

    assert told.status == 1
    assert told.json == {
        "warnings": [
            {
                "ruleName": "LegacyKeyValueFormat",
                "description": "ENV and LABEL are written with =",
                "url": "https://docs.docker.com/go/dockerfile/rule/legacy-key-value-format/",
                "detail": '"LABEL a=..." should be written, with an equals sign',
                "location": {"ranges": [{"start": {"line": 2}, "end": {"line": 3}}]},
            }
        ],
        "sources": [
            {"filename": "Dockerfile", "language": "Dockerfile", "data": base64.b64encode(text.encode()).decode()}
        ],
    }


def test_a_check_tells_what_it_found_before_an_error(tmp_path: Path) -> None:
    dockerfile = "FROM scratch AS A\nMAINTAINER me\nFRM b\nENV C 1\n"

    told = tell(tmp_path, dockerfile, "--call=check,format=json")

    assert told.status == 1
    assert [warning["ruleName"] for warning in told.json["warnings"]] == ["StageNameCasing", "MaintainerDeprecated"]
    assert told.json["buildError"] == {
        "message": "unknown instruction: FRM",
        "location": {"ranges": [{"start": {"line": 3}, "end": {"line": 3}}]},
    }


def test_a_check_goes_on_in_other_stages_behind_an_error(tmp_path: Path) -> None:
    dockerfile = "FROM scratch AS a\nEXPOSE x\nFROM a\nENV B 1\nFROM scratch\nENV C 1\n"

    told = tell(tmp_path, dockerfile, "--check")

    assert told.status == 1
    assert told.out.startswith("Check ended at an error, with 1 warning found before.\n")
    assert "ERROR: invalid containerPort: x\nDockerfile:2\n" in told.out
    assert "   6 | >>> ENV C 1\n" in told.out


def test_a_base_image_that_is_not_to_be_found_does_not_end_a_check(tmp_path: Path) -> None:
    dockerfile = "FROM 127.0.0.1:1/missing\nENV A=$UNKNOWN\nENV B 1\nCOPY --from=127.0.0.1:1/neither x /x\n"

    told = tell(tmp_path, dockerfile, "--call=check,format=json", "-q")

    assert [warning["ruleName"] for warning in told.json["warnings"]] == ["LegacyKeyValueFormat"]
    assert "buildError" not in told.json


def test_the_status_of_a_check_can_be_ignored(tmp_path: Path) -> None:
    assert tell(tmp_path, "FROM scratch\nENV A 1\n", "--call=check,ignorestatus=true").status == 0


def test_findings_that_count_as_an_error_are_told_as_one(tmp_path: Path) -> None:
    told = tell(tmp_path, "# check=error=true\nFROM scratch\nENV A 1\n", "--call=check,format=json")

    assert len(told.json["warnings"]) == 1
    assert "LegacyKeyValueFormat" in told.json["buildError"]["message"]


def test_a_build_warns_of_what_is_found_in_the_stages_that_it_needs(tmp_path: Path) -> None:
    dockerfile = "FROM scratch AS a\nENV A 1\nFROM scratch\nENV B 1\n"

    told = tell(tmp_path, dockerfile, "--progress=plain")

    assert told.status == 0
    assert told.err.endswith(
        "\n 1 warning found (use --check to expand):\n"
        ' - LegacyKeyValueFormat: "ENV B=..." should be written, with an equals sign (line 4)\n'
    )


def test_a_build_warns_also_where_it_fails(tmp_path: Path) -> None:
    told = tell(tmp_path, "FROM scratch\nENV A 1\nEXPOSE x\n", "--progress=plain")

    assert told.status == 3
    assert " 1 warning found (use --check to expand):\n - LegacyKeyValueFormat: " in told.err


def test_a_build_warns_of_what_stands_above_an_instruction_that_is_none(tmp_path: Path) -> None:
    told = tell(tmp_path, "FROM scratch AS A\nMAINTAINER me\nENV B 1\nENW A=1\n", "--progress=plain")

    assert told.status == 3
    assert [line.partition(":")[0] for line in told.err.splitlines() if line.startswith(" - ")] == [
        " - StageNameCasing",
        " - MaintainerDeprecated",
    ]


def test_a_terminal_shows_what_checks_found_below_the_list() -> None:
    board = Board()
    board.apply(Warned("one", rule="A"))
    board.apply(Warned("two", Location("Dockerfile", 7, 8), rule="B"))
    board.apply(Warned("of another kind"))

    lines = picture.final(board, started=0.0, now=1.0, columns=80)

    assert [line.text for line in lines] == [
        "[+] Building 1.0s (0/0) FINISHED",
        "WARNING: of another kind",
        "",
        " 2 warnings found (use --check to expand):",
        " - A: one",
        " - B: two (line 7)",
    ]


def test_a_build_ends_where_findings_count_as_errors(tmp_path: Path) -> None:
    dockerfile = "FROM scratch\nENV A 1\nCOPY missing /\n"

    told = tell(tmp_path, dockerfile, "--build-arg=BUILDKIT_DOCKERFILE_CHECK=error=true")

    assert told.status == 3
    assert "ERROR: checks have found something, and it counts as an error: LegacyKeyValueFormat\n" in told.err


def test_a_file_that_is_ignored_is_told_before_it_is_missed(tmp_path: Path) -> None:
    told = tell(tmp_path, "FROM scratch\nCOPY a /\n", "--progress=plain", **{"a": "", ".dockerignore": "a\n"})

    assert told.status == 4
    assert ' - CopyIgnoredFile: COPY of "a", which .dockerignore excludes (line 2)\n' in told.err


def test_targets_lists_the_stages_that_can_be_named(tmp_path: Path) -> None:
    told = tell(tmp_path, DOCKERFILE, "--call=targets")

    assert told.out == (
        "TARGET      DESCRIPTION\n"
        "base        has the tools\n"
        "app         is the application\n"
        "(default)\n"
    )  # fmt: skip


def test_the_document_of_targets_has_buildkits_form(tmp_path: Path) -> None:
    told = tell(tmp_path, "FROM --platform=linux/amd64 alpine:3 AS a\nFROM a\n", "--call=targets,format=json")

    assert told.json["targets"] == [
        {
            "name": "a",
            "base": "alpine:3",
            "platform": "linux/amd64",
            "location": {"ranges": [{"start": {"line": 1}, "end": {"line": 1}}]},
        },
        {"default": True, "base": "a", "location": {"ranges": [{"start": {"line": 2}, "end": {"line": 2}}]}},
    ]


def test_outline_tells_what_a_target_can_be_given(tmp_path: Path) -> None:
    told = tell(tmp_path, DOCKERFILE, "--call=outline", "--target=app", "--build-arg=VERSION=2")

    assert told.out == (
        "TARGET:      app\n"
        "DESCRIPTION: is the application\n"
        "\n"
        "BUILD ARG   VALUE   DESCRIPTION\n"
        "VERSION     2       which version to build\n"
        "TAG         v2\n"
        "DIR         /opt/   where files go\n"
        "FLAVOUR\n"
    )


def test_outline_tells_the_last_of_several_declarations(tmp_path: Path) -> None:
    """BuildKit's outlines do so: an argument may be made of what it was before."""
    dockerfile = """\
ARG A=1
ARG B=b
ARG C=c
ARG A=$A$B
ARG D=${A}4
FROM scratch
ARG A
ARG D
ARG IN=5
ARG IN=$IN$A
"""
    told = tell(tmp_path, dockerfile, "--call=outline,format=json")

    values = [
        (each["name"], each["value"], each["location"]["ranges"][0]["start"]["line"]) for each in told.json["args"]
    ]
    assert values == [("B", "b", 2), ("A", "1b", 4), ("D", "1b4", 5), ("IN", "51b", 10)]


def test_outline_tells_of_secrets_agents_and_caches(tmp_path: Path) -> None:
    dockerfile = """\
FROM scratch AS base
ARG NAME=api
RUN --mount=type=secret,id=${NAME}-token,required --mount=type=ssh --mount=type=cache,target=/root/.cache true
FROM base AS app
RUN --mount=type=secret,target=/etc/password --mount=type=ssh,id=deploy,required=true true
RUN --mount=target=/src --mount=type=cache,id=pip,target=/c true
FROM scratch
RUN --mount=type=secret,id=other true
"""

    text = tell(tmp_path, dockerfile, "--call=outline", "--target=app").out
    document = tell(tmp_path, dockerfile, "--call=outline,format=json", "--target=app").json

    assert text.partition("SECRET")[2] == (
        "      REQUIRED\n"
        "api-token   true\n"
        "password\n"
        "\n"
        "SSH       REQUIRED\n"
        "default\n"
        "deploy    true\n"
        "\n"
        "CACHE\n"
        "/root/.cache\n"
        "pip\n"
    )
    assert document["secrets"][0] == {
        "name": "api-token",
        "required": True,
        "location": {"ranges": [{"start": {"line": 3}, "end": {"line": 3}}]},
    }
    assert [item["ID"] for item in document["cache"]] == ["/root/.cache", "pip"]


def test_outline_leaves_out_what_the_target_does_not_use(tmp_path: Path) -> None:
    told = tell(tmp_path, DOCKERFILE, "--call=outline,format=json")

    assert [item["name"] for item in told.json["args"]] == ["VERSION"]
    assert "name" not in told.json


def test_outline_of_a_target_that_is_not_there_is_refused(tmp_path: Path) -> None:
    told = tell(tmp_path, DOCKERFILE, "--call=outline", "--target=ap")

    assert told.status == 3
    assert "hint: did you mean app?\n" in told.err


@pytest.mark.parametrize(
    ("call", "hint"),
    [
        ("outlin", "did you mean outline?"),
        ("everything", "there are build, check, outline and targets"),
        ("check,format=xml", "there are format=json and ignorestatus"),
    ],
)
def test_a_call_that_is_not_there_is_refused(tmp_path: Path, call: str, hint: str) -> None:
    told = tell(tmp_path, "FROM scratch\n", f"--call={call}")

    assert told.status == 2
    assert hint in told.err


def test_the_call_of_build_builds(tmp_path: Path) -> None:
    told = tell(tmp_path, "FROM scratch\nENV A=1\n", "--call=build", "-q")

    assert told.out.startswith("sha256:")


@pytest.mark.parametrize(
    "head",
    [
        "# syntax=docker/dockerfile:1\n",
        "# syntax = docker.io/docker/dockerfile:1.7-labs\n",
        "#syntax=docker/dockerfile-upstream:master\n",
        "# syntax=docker/dockerfile@sha256:" + "0" * 64 + "\n",
    ],
)
def test_the_frontend_of_dockerfiles_is_built_in(tmp_path: Path, head: str) -> None:
    assert tell(tmp_path, f"{head}FROM scratch\n", "--check").status == 0


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("# escape=`\n# syntax=example.org/other:1 argument\nFROM scratch\n", 2),
        ("# syntax=docker/dockerfilex\nFROM scratch\n", 1),
        ("#!/usr/bin/env other\n// syntax=other/frontend\nanything at all\n", 2),
        ('{\n  "syntax": "other/frontend"\n}\n', 1),
    ],
)
def test_another_frontend_is_refused(tmp_path: Path, text: str, line: int) -> None:
    told = tell(tmp_path, text)

    assert told.status == 3
    assert f"Dockerfile:{line}\n" in told.err
    assert "is not supported\nhint: pybuild reads Dockerfiles itself" in told.err


def test_a_build_argument_can_name_the_frontend(tmp_path: Path) -> None:
    foreign = "# syntax=other/frontend\nFROM scratch\n"

    assert tell(tmp_path, foreign, "--check", "--build-arg=BUILDKIT_SYNTAX=docker/dockerfile:1").status == 0
    assert tell(tmp_path, "FROM scratch\n", "--check", "--build-arg=BUILDKIT_SYNTAX=other/frontend").status == 3
