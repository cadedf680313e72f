"""Checks: the examples on the page of each rule, and what its page does not show."""

import re
from pathlib import Path

import pytest

from builder.checks.rule import Finding
from builder.checks.ruleset import RULES, find_all, refuse, unknown_names
from builder.checks.settings import Settings, read_settings
from builder.context.ignore import IgnoreFile, Judge, Verdict
from builder.context.named import NamedContexts
from builder.dockerfile.directives import Directive
from builder.dockerfile.parser import parse
from builder.dockerfile.reader import read
from builder.errors import DockerfileError, Location
from builder.graph import Evaluation, Surroundings
from builder.steps.step import Base
from layers.digest import Digest
from layers.errors import ImageError
from layers.oci import CONFIG, MANIFEST, Descriptor, Image, ImageConfig, Manifest, Platform, RunConfig

PAGES = Path(__file__).parent.parent / "docs" / "checks"
HOST = Platform.parse("linux/amd64")


def image(name: str, _platform: Platform) -> Base:
    """A base image that is as its name says: missing, for arm64, with a SHELL, with a trigger; all have JAVA_HOME."""
    if "missing" in name:
        raise ImageError(f"there is no {name}")
    platform = Platform.parse("linux/arm64") if "arm64" in name else HOST
    shell = ("/bin/bash", "-c") if "shell" in name else None
    on_build = ("COPY $WHAT /what",) if "onbuild" in name else ()
    config = ImageConfig(platform, RunConfig(env=("JAVA_HOME=/java",), shell=shell, on_build=on_build))
    nowhere = Digest.of(b"")
    manifest = Manifest(Descriptor(CONFIG, nowhere, 0), ())
    return Base(name, Image(Descriptor(MANIFEST, nowhere, 0), manifest, config))


def findings(
    dockerfile: str, *, ignore: str = "", target: str | None = None, build_args: dict[str, str] | None = None
) -> tuple[Finding, ...]:
    """What is found in a Dockerfile; without a target in all its stages."""
    parsed = parse(read(dockerfile.encode(), "Dockerfile"))
    surroundings = Surroundings(
        find_image=image,
        contexts=NamedContexts({}),
        platform=HOST,
        build_args=build_args or {},
        labels={},
        warn=lambda message, location: None,
        builds=False,
    )
    evaluation = Evaluation(parsed, target or "", surroundings)
    error = evaluation.look_through(everything=target is None)
    assert error is None, error
    judge = Judge(IgnoreFile(".dockerignore", ignore.encode()))
    settings = read_settings(parsed.directives.check, build_args or {})
    return find_all(evaluation.survey(), settings, lambda path: judge.judge(path) == Verdict.EXCLUDED)


def told(dockerfile: str, *, target: str | None = None, build_args: dict[str, str] | None = None) -> list[str]:
    """The findings as `RULE:LINE`."""
    found = findings(dockerfile, target=target, build_args=build_args)
    return [f"{finding.rule.name}:{finding.location.first}" for finding in found]


def examples(rule: str, kind: str) -> list[tuple[str, str]]:
    """The Dockerfiles below a heading of a page, each with the ignore file that stands above it."""
    _, _, part = (PAGES / f"{rule}.md").read_text().partition(f"\n## {kind}\n")
    blocks = re.findall(r"```(\w+)\n(.*?)```", part.partition("\n## ")[0], re.DOTALL)
    ignore = "".join(text for language, text in blocks if language == "dockerignore")
    return [(text, ignore) for language, text in blocks if language == "dockerfile"]


@pytest.mark.parametrize("rule", [rule.name for rule in RULES])
def test_the_bad_example_of_a_page_is_found_by_its_rule_and_no_other(rule: str) -> None:
    for dockerfile, ignore in examples(rule, "Bad"):
        assert {finding.rule.name for finding in findings(dockerfile, ignore=ignore)} == {rule}


@pytest.mark.parametrize("rule", [rule.name for rule in RULES])
def test_nothing_is_found_in_the_good_example_of_a_page(rule: str) -> None:
    pages = examples(rule, "Good")

    found = [finding.detail for dockerfile, ignore in pages for finding in findings(dockerfile, ignore=ignore)]

    assert pages
    assert found == []


def test_every_rule_has_a_page_and_every_page_a_rule() -> None:
    assert sorted(path.stem for path in PAGES.iterdir()) == [rule.name for rule in RULES]
    assert all((PAGES / f"{rule.name}.md").read_text().startswith(f"# {rule.name}\n") for rule in RULES)


@pytest.mark.parametrize(
    ("dockerfile", "expected"),
    [
        # The majority decides; a word in both cases is wrong either way.
        ("from scratch\nlabel a=1\nLABEL b=2", ["ConsistentInstructionCasing:3"]),
        ("from scratch\nLABEL b=2", ["ConsistentInstructionCasing:1"]),
        ("fRom scratch AS a", ["ConsistentInstructionCasing:1"]),
        # AS follows its own FROM.
        ("from scratch AS a", ["FromAsCasing:1"]),
        ("FROM --platform=$BUILDPLATFORM scratch as a", ["FromAsCasing:1"]),
        # Names are compared in lower case.
        ("FROM scratch AS a\nFROM scratch AS A", ["DuplicateStageName:2", "StageNameCasing:2"]),
        ("FROM scratch AS a\nFROM scratch AS a\nFROM scratch AS a", ["DuplicateStageName:2", "DuplicateStageName:3"]),
        # SHELL of the stage, of the stage below, or of the base image.
        ('FROM scratch\nCMD a\nSHELL ["b"]', ["JSONArgsRecommended:2"]),
        ('FROM scratch AS a\nSHELL ["b"]\nFROM a\nENTRYPOINT c', []),
        ("FROM shell\nENTRYPOINT c", []),
        # Only RUN is left alone where the shell form is what one wants.
        ("FROM scratch\nHEALTHCHECK CMD true", []),
        # The later one counts, so the earlier ones are told.
        ('FROM scratch\nCMD ["a"]\nCMD ["b"]\nCMD []', [
            "MultipleInstructionsDisallowed:2", "MultipleInstructionsDisallowed:3"]),
        # The first WORKDIR decides, that of a stage below included, that of a base image not.
        ("FROM scratch AS a\nWORKDIR /a\nFROM a\nWORKDIR b", []),
        ("FROM scratch\nWORKDIR a\nWORKDIR b", ["WorkdirRelativePath:2"]),
        ("FROM scratch\nARG A=/a\nWORKDIR $A/b", []),
        ("FROM scratch\nARG A=a\nWORKDIR ${A}", ["WorkdirRelativePath:3"]),
        # Names of secrets are words between underscores, in any case.
        ("FROM scratch\nARG a_Secret_b apiKey APIKEYS keys", ["SecretsUsedInArgOrEnv:2"] * 2),
        ("FROM scratch\nENV TOKEN=1 TOKENS=2 PASSWD=3 MY_AUTH=", ["SecretsUsedInArgOrEnv:2"] * 3),
        ("FROM scratch\nARG KEY_VERSION TOKEN_FILE PUBLIC_KEY", []),
        ("ARG TOKEN\nFROM scratch", []),
        # Constants, unless the stage is named after the platform.
        ("FROM --platform=amd64 scratch", ["FromPlatformFlagConstDisallowed:1"]),
        ("FROM --platform=linux/amd64 scratch AS linux", []),
        ("ARG P=linux/amd64\nFROM --platform=$P scratch", []),
        ("FROM --platform=${TARGETPLATFORM} scratch", ["RedundantTargetPlatform:1"]),
        ("FROM --platform=${TARGETPLATFORM:-linux/amd64} scratch", ["RedundantTargetPlatform:1"]),
        ("FROM --platform=$TARGETOS/$TARGETARCH scratch", []),
        # What FROM uses must be declared; a default in the word does not declare.
        ("ARG A\nFROM scratch$A", []),
        ("ARG A\nFROM scra${A:-tch}", []),
        ("FROM scratch$A", ["UndefinedArgInFrom:1"]),
        ("FROM scra${A:-tch}", ["UndefinedArgInFrom:1"]),
        # An image without a tag that a variable would give.
        ("ARG A=x:\nFROM ${A}", ["InvalidDefaultArgInFrom:2"]),
        # Variables, where they are used.
        ("FROM scratch\nARG A\nCOPY f$A .", []),
        ("FROM scratch AS a\nARG A=f\nFROM a\nCOPY $A .", []),
        ("FROM scratch\nCOPY $A .\nARG A=1", ["UndefinedVar:2"]),
        ('FROM scratch\nRUN echo $A\nCMD ["$A"]\nENTRYPOINT ["$A"]\nHEALTHCHECK CMD echo $A', []),
        ("FROM scratch\nENV A=1 B=$A", ["UndefinedVar:2"]),
        ("FROM scratch\nLABEL a='$A' b=\\$A", []),
        ("FROM scratch\nLABEL a=${A:-1}", ["UndefinedVar:2"]),
        ("FROM java\nENV PATH=$JAVA_HOME/bin:$PATH", []),
        ("FROM missing\nENV PATH=$JAVA_HOME/bin:$PATH", []),
        ("FROM missing AS a\nFROM a\nENV PATH=$JAVA_HOME/bin:$PATH", []),
        ("FROM onbuild", ["UndefinedVar:1"]),
        # Ports after their variables are replaced.
        ("FROM scratch\nARG P='80/TCP 443'\nEXPOSE $P", ["ExposeProtoCasing:3"]),
        ("FROM arm64 AS a\nFROM a", ["InvalidBaseImagePlatform:1"]),
        ("FROM --platform=$BUILDPLATFORM arm64", ["InvalidBaseImagePlatform:1"]),
    ],
)  # fmt: skip
def test_what_is_found(dockerfile: str, expected: list[str]) -> None:
    assert told(dockerfile) == expected


@pytest.mark.parametrize(
    ("name", "near"),
    [("PAHT", "PATH"), ("DIR_ASSET", "DIR_ASSETS"), ("NOTHING_LIKE_IT", None)],
)
def test_a_variable_that_is_near_is_told(name: str, near: str | None) -> None:
    dockerfile = f"FROM scratch\nARG DIR_ASSETS=a\nCOPY ${name} /"

    [finding] = findings(dockerfile)

    assert finding.detail.endswith(f"(did you mean ${near}?)" if near else "is not defined")


def test_an_argument_that_is_near_is_told() -> None:
    [finding] = findings("FROM --platform=${BULIDPLATFORM:-amd64} scratch")

    assert finding.detail.endswith("(did you mean BUILDPLATFORM?)")


def test_the_place_of_a_finding_marks_the_words_that_are_meant() -> None:
    [finding] = findings("FROM scratch\nCOPY a \\\n  ${missing} /")

    assert (finding.location.first, finding.location.last, finding.location.span) == (2, 3, "${missing")


def test_a_target_is_checked_with_what_it_needs_and_nothing_else() -> None:
    dockerfile = "FROM scratch AS a\nENV A 1\nFROM a AS b\nENV B 1\nFROM scratch AS c\nENV C 1"

    assert told(dockerfile, target="b") == ["LegacyKeyValueFormat:2", "LegacyKeyValueFormat:4"]
    assert len(told(dockerfile)) == 3


@pytest.mark.parametrize(
    ("ignore", "source", "is_found"),
    [
        ("a", "a", True),
        ("a", "./a/", True),
        ("a", "/a/b", True),
        ("*.md", "*.md", True),
        ("a", "ab", False),
        ("a\n!a/b", "a", False),
        ("d\n!*/b", "d", False),
        (".*", ".", False),
        ("*", "./", True),
        ("**/*", "/", True),
        ("*\n!a", ".", False),
    ],
)
def test_a_source_is_ignored_if_the_file_says_so_without_exception(ignore: str, source: str, is_found: bool) -> None:  # noqa: FBT001 - a column of the table
    found = findings(f"FROM scratch\nCOPY {source} /x/", ignore=ignore)

    assert [finding.rule.name for finding in found] == ["CopyIgnoredFile"] * is_found


def test_the_ignore_file_says_nothing_of_stages_and_of_what_is_elsewhere() -> None:
    dockerfile = (
        "FROM scratch AS s\nFROM scratch\nCOPY --from=s a /a\nADD https://example.org/a /a\nADD git@example.org:a /a"
    )

    assert findings(dockerfile, ignore="**") == ()


def test_rules_can_be_skipped() -> None:
    text = "FROM scratch as A\ncopy x y\n"

    assert told(text) == ["FromAsCasing:1", "StageNameCasing:1", "ConsistentInstructionCasing:2"]
    assert told(f"# check=skip=FromAsCasing, StageNameCasing\n{text}") == ["ConsistentInstructionCasing:3"]
    assert told(f"# check=skip=all;error=true\n{text}") == []


def test_a_build_argument_goes_before_the_directive() -> None:
    argument = {"BUILDKIT_DOCKERFILE_CHECK": "skip=FromAsCasing"}

    assert told("# check=skip=all\nFROM scratch as a\nCMD b", build_args=argument) == ["JSONArgsRecommended:3"]


def test_an_experimental_rule_applies_where_it_is_named_whatever_is_skipped() -> None:
    text = "# What it is\nFROM scratch AS a\n"

    assert told(text) == []
    assert told(f"# check=skip=all;experimental=all\n{text}") == ["InvalidDefinitionDescription:3"]


def test_a_comment_above_an_instruction_skips_checks_of_it_alone() -> None:
    text = "FROM scratch\n# check=skip={} // it is meant so\nENV PASSWORD 1\nENV TOKEN 2"
    next_line = ["LegacyKeyValueFormat:4", "SecretsUsedInArgOrEnv:4"]

    assert told(text.format("SecretsUsedInArgOrEnv")) == ["LegacyKeyValueFormat:3", *next_line]
    assert told(text.format("SecretsUsedInArgOrEnv,LegacyKeyValueFormat")) == next_line
    assert told(text.format("all")) == next_line
    assert len(told(text.format("all;nonsense=1"))) == 4


def test_a_comment_above_an_instruction_can_choose_an_experimental_rule() -> None:
    text = "FROM scratch\n# check=experimental=all\n# What it is\nARG a\n# What it is\nARG b"

    assert told(text) == ["InvalidDefinitionDescription:4"]


def test_a_comment_that_an_empty_line_sets_apart_is_no_description() -> None:
    assert told("# check=experimental=all\n# What it is\n\nFROM scratch AS a") == []
    assert told("# check=experimental=all\n# What it is\n#\nFROM scratch AS a") == []
    assert told("# check=experimental=all\n# What it is\n# b is b\nARG a b\nFROM scratch") == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Settings()),
        ("skip=A, B", Settings(skip=frozenset({"A", "B"}))),
        (" error = true ; skip = all", Settings(skip=frozenset({"all"}), error=True)),
        ("error=0", Settings()),
    ],
)
def test_settings_are_read(text: str, expected: Settings) -> None:
    assert read_settings(None, {"BUILDKIT_DOCKERFILE_CHECK": text}) == expected


@pytest.mark.parametrize(
    ("text", "hint"),
    [("skp=A", "did you mean skip=?"), ("nothing", "there are skip="), ("error=maybe", "true or false")],
)
def test_settings_that_cannot_be_read_are_refused(text: str, hint: str) -> None:
    directive = Directive(text, Location("Dockerfile", 1, 1))

    with pytest.raises(DockerfileError, match="invalid check option") as caught:
        read_settings(directive, {})

    assert hint in caught.value.hint
    assert caught.value.location == Location("Dockerfile", 1, 1, span=text)


def test_a_rule_that_is_not_there_is_told() -> None:
    assert unknown_names(Settings(skip=frozenset({"all", "UndefinedVar"}))) == []
    assert unknown_names(Settings(skip=frozenset({"UndefindVar", "X"}))) == [
        "there is no check UndefindVar: did you mean UndefinedVar?",
        "there is no check X",
    ]


def test_findings_end_the_build_where_the_settings_say_so() -> None:
    found = findings("FROM scratch\nCMD a\nENV B 1")

    refuse(found, Settings())
    with pytest.raises(DockerfileError, match="JSONArgsRecommended, LegacyKeyValueFormat") as caught:
        refuse(found, Settings(error=True))

    assert caught.value.location == found[0].location


@pytest.mark.parametrize(
    ("name", "page"),
    [
        ("JSONArgsRecommended", "json-args-recommended"),
        ("UndefinedArgInFrom", "undefined-arg-in-from"),
        ("FromPlatformFlagConstDisallowed", "from-platform-flag-const-disallowed"),
    ],
)
def test_the_address_of_a_rule_is_its_name_with_hyphens(name: str, page: str) -> None:
    [rule] = [rule for rule in RULES if rule.name == name]

    assert rule.url.endswith(f"/rule/{page}/")


def test_of_many_undefined_variables_few_are_told() -> None:
    """Each is compared with all that is defined; nobody would read more."""
    body = " ".join(f"$X{number}" for number in range(10_000))

    assert len(findings(f"FROM scratch\nCOPY <<EOF /f\n{body}\nEOF")) == 100
