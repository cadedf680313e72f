"""Checks of names and of how words are written: letters, casing, comments."""

from collections.abc import Iterator

from builder.checks.rule import Findings, Subject, at
from builder.dockerfile.flags import split_flags
from builder.dockerfile.instructions import Arg, From, Instruction
from builder.dockerfile.texts import BLANKS, first_word, words_of

_RESERVED = ("scratch", "context")


def consistent_instruction_casing(subject: Subject) -> Findings:
    """Keywords in the case that most of the file has, upper case in a tie; none in both."""
    written = [(first_word(part.original)[0], part) for part in _instructions(subject)]
    lower = sum(keyword.islower() for keyword, _ in written)
    upper = sum(keyword.isupper() for keyword, _ in written)
    wanted, case = (str.lower, "lower") if lower > upper else (str.upper, "upper")
    for keyword, part in written:
        if keyword != wanted(keyword):
            yield at(part, keyword), f"'{keyword}' should be in {case} case, as most instructions of the file are"


def from_as_casing(subject: Subject) -> Findings:
    """FROM and AS of one line in the same case."""
    for part, keyword, words in _named_stages(subject):
        # A keyword in both cases is what another check tells of.
        wrong = (keyword.islower() and not words[1].islower()) or (keyword.isupper() and not words[1].isupper())
        if wrong:
            yield at(part, words[1]), f"'{words[1]}' and '{keyword}' should be in the same case"


def stage_name_casing(subject: Subject) -> Findings:
    """Names of stages in lower case, as they are compared."""
    for part, _, words in _named_stages(subject):
        if words[2] != words[2].lower():
            yield at(part, words[2]), f"stage name '{words[2]}' should be in lower case"


def duplicate_stage_name(subject: Subject) -> Findings:
    """Two stages of one name: the later one hides the earlier one."""
    seen = set()
    for stage in subject.survey.dockerfile.stages:
        if stage.name and stage.name in seen:
            yield at(stage.from_), f'stage name "{stage.name}" is used before: stage names should be unique'
        seen.add(stage.name)


def reserved_stage_name(subject: Subject) -> Findings:
    """Names that mean something else in FROM and --from."""
    for stage in subject.survey.dockerfile.stages:
        if stage.name in _RESERVED:
            yield at(stage.from_), f'stage name "{stage.name}" is a reserved word'


def no_empty_continuation(subject: Subject) -> Findings:
    """Empty lines between the lines of one instruction."""
    for note in subject.survey.dockerfile.notes:
        if note.rule == "NoEmptyContinuation":
            yield note.location, note.message


def invalid_definition_description(subject: Subject) -> Findings:
    """A comment right above FROM or ARG that does not begin with the name it would describe."""
    source = subject.survey.dockerfile.source
    comments = {statement.location.first: statement.comments for statement in source.statements}
    for part in _definitions(subject):
        first = part.location.first
        names = [part.name] if isinstance(part, From) else [item.name for item in part.declarations]
        above = source.lines[first - 2].lstrip(BLANKS) if first > 1 else ""
        if not comments.get(first) or not any(names) or not above.startswith("#"):
            continue
        if comments[first][-1].split(" ")[0] not in names:
            keyword = "FROM" if isinstance(part, From) else "ARG"
            name = names[0] if len(names) == 1 else "<name of the argument>"
            yield at(part), f"the comment on {keyword} should read `# {name} <description>`"


def _definitions(subject: Subject) -> Iterator[From | Arg]:
    dockerfile = subject.survey.dockerfile
    yield from dockerfile.global_args
    for part in _instructions(subject):
        if isinstance(part, From | Arg):
            yield part


def _instructions(subject: Subject) -> Iterator[Instruction]:
    """All instructions of all stages, FROM included."""
    for stage in subject.survey.dockerfile.stages:
        yield stage.from_
        yield from stage.instructions


def _named_stages(subject: Subject) -> Iterator[tuple[From, str, list[str]]]:
    """Each FROM that names its stage, with its keyword and its three words as they are written."""
    for stage in subject.survey.dockerfile.stages:
        if stage.name:
            keyword, rest = first_word(stage.from_.original)
            yield stage.from_, keyword, words_of(split_flags(rest)[1])
