"""All checks, and how they are applied."""

from collections.abc import Callable, Sequence
from operator import attrgetter

from builder.checks import bases, instructions, names, variables
from builder.checks.rule import Finding, Rule, Subject
from builder.checks.settings import Settings
from builder.dockerfile.suggest import closest
from builder.errors import DockerfileError
from builder.survey import Survey

RULES = (
    Rule(
        "ConsistentInstructionCasing",
        "Instructions are written in one case throughout a file",
        names.consistent_instruction_casing,
    ),
    Rule("CopyIgnoredFile", "COPY and ADD take nothing that .dockerignore excludes", instructions.copy_ignored_file),
    Rule("DuplicateStageName", "Each stage has a name of its own", names.duplicate_stage_name),
    Rule("ExposeInvalidFormat", "EXPOSE names ports of the container only", instructions.expose_invalid_format),
    Rule("ExposeProtoCasing", "Protocols of EXPOSE are in lower case", instructions.expose_proto_casing),
    Rule("FromAsCasing", "AS is written in the case of its FROM", names.from_as_casing),
    Rule(
        "FromPlatformFlagConstDisallowed",
        "FROM --platform has a variable, not a constant",
        bases.from_platform_flag_const_disallowed,
    ),
    Rule(
        "InvalidBaseImagePlatform",
        "Base images are for the platform that is built for",
        bases.invalid_base_image_platform,
    ),
    Rule(
        "InvalidDefaultArgInFrom",
        "FROM names an image without any --build-arg",
        bases.invalid_default_arg_in_from,
    ),
    Rule(
        "InvalidDefinitionDescription",
        "A comment right above FROM or ARG begins with the name that it describes",
        names.invalid_definition_description,
        experimental=True,
    ),
    Rule(
        "JSONArgsRecommended",
        "CMD and ENTRYPOINT are JSON lists, so that signals reach the program",
        instructions.json_args_recommended,
    ),
    Rule("LegacyKeyValueFormat", "ENV and LABEL are written with =", instructions.legacy_key_value_format),
    Rule("MaintainerDeprecated", "A label tells who maintains an image", instructions.maintainer_deprecated),
    Rule(
        "MultipleInstructionsDisallowed",
        "A stage has one CMD, one ENTRYPOINT and one HEALTHCHECK at most",
        instructions.multiple_instructions_disallowed,
    ),
    Rule("NoEmptyContinuation", "No empty line within an instruction", names.no_empty_continuation),
    Rule("RedundantTargetPlatform", "--platform=$TARGETPLATFORM is the default", bases.redundant_target_platform),
    Rule("ReservedStageName", "No stage is called scratch or context", names.reserved_stage_name),
    Rule("SecretsUsedInArgOrEnv", "No secrets in ARG and ENV", variables.secrets_used_in_arg_or_env),
    Rule("StageNameCasing", "Names of stages are in lower case", names.stage_name_casing),
    Rule("UndefinedArgInFrom", "Variables of FROM are declared above the first FROM", bases.undefined_arg_in_from),
    Rule("UndefinedVar", "Variables are defined before they are used", variables.undefined_var),
    Rule(
        "WorkdirRelativePath",
        "The first WORKDIR is absolute, whatever the base image has",
        instructions.workdir_relative_path,
    ),
)
"""By name."""


_OF_STATEMENTS = frozenset(
    (
        "FromAsCasing",
        "InvalidDefinitionDescription",
        "MaintainerDeprecated",
        "NoEmptyContinuation",
        "StageNameCasing",
    )
)
"""Rules that need to know nothing of the rest of the file, and nothing of images."""


def find_in_beginning(beginning: Survey, settings: Settings) -> tuple[Finding, ...]:
    """What is found in a file that cannot be read to its end."""
    found = find_all(beginning, settings, is_ignored=lambda _: False)
    return tuple(finding for finding in found if finding.rule.name in _OF_STATEMENTS)


def find_all(survey: Survey, settings: Settings, is_ignored: Callable[[str], bool]) -> tuple[Finding, ...]:
    """What the rules that apply find, in the order of the file; comments above an instruction may say more of it."""
    subject = Subject(survey, is_ignored)
    instructions = {
        statement.location.first: settings.with_comments(statement.comments)
        for statement in survey.dockerfile.source.statements
        if statement.comments
    }
    findings = [
        Finding(rule, location, detail)
        for rule in RULES
        if any(some.applies(rule) for some in (settings, *instructions.values()))
        for location, detail in rule.find(subject)
        if instructions.get(location.first, settings).applies(rule)
    ]
    return tuple(sorted(findings, key=lambda finding: finding.location.first))


def refuse(findings: Sequence[Finding], settings: Settings) -> None:
    """DockerfileError if something was found and `# check=error=true` says that this ends the build."""
    if findings and settings.error:
        names = ", ".join(sorted({finding.rule.name for finding in findings}))
        raise DockerfileError(
            f"checks have found something, and it counts as an error: {names}",
            hint="that is what check=error=true says",
            location=findings[0].location,
        )


def unknown_names(settings: Settings) -> list[str]:
    """A sentence for each name in the settings that no rule has: it is likely misspelt."""
    known = list(map(attrgetter("name"), RULES))
    sentences = []
    for name in sorted(settings.names.difference(known)):
        near = closest(name, known)
        sentences.append(f"there is no check {name}" + (f": did you mean {near}?" if near else ""))
    return sentences
