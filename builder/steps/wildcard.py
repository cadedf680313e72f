"""Wildcards of COPY and ADD: Go's `filepath.Match`, one component at a time, over any tree.

The forms are those of https://pkg.go.dev/path/filepath#Match: `*`, `?`, `[a-z]`, `[^a-z]`, and a backslash before a
character that is meant as it is. `**` has no meaning of its own here.
"""

import re

from builder.steps.tree import Tree
from layers.entry import Entry, Kind


def has_wildcard(pattern: str) -> bool:
    """Whether a source is a pattern: an unescaped `*`, `?` or `[` stands in it."""
    return re.search(r"[*?\[]", re.sub(r"\\.", "", pattern)) is not None


def matches(tree: Tree, pattern: str) -> list[Entry] | None:
    """All entries whose path matches, in the order of a sorted walk.

    The folder before the first wildcard is a plain name, whose links are followed: None if it is not there. Links
    further on are not.
    """
    components = pattern.split("/")
    plain = next(number for number, component in enumerate(components) if has_wildcard(component))
    top = tree.lookup(tree.resolve("/".join(components[:plain])))
    if top is None:
        return None
    found = [top]
    for component in components[plain:]:
        fits = compile_component(component)
        found = [
            child
            for folder in found
            if folder.kind is Kind.DIRECTORY
            for child in tree.children(folder.path)
            if fits.fullmatch(child.path.rpartition("/")[2])
        ]
    return found


def compile_component(pattern: str) -> re.Pattern[str]:
    """One component of a pattern as a regular expression. A malformed one matches nothing, as in BuildKit."""
    parts: list[str] = []
    rest, stars = pattern, 0
    while rest:
        head, rest = rest[0], rest[1:]
        if head == "*":
            # What lies between two stars is matched where it first can be, and never tried elsewhere (an atomic group):
            # nothing is lost by that, and the time stays linear.
            rest = rest.lstrip("*")
            parts.append(")(?>[^/]*?" if stars else "(?>[^/]*?")
            stars += 1
        elif head == "?":
            parts.append("[^/]")
        elif head == "[":
            klass, rest = _character_class(rest)
            if klass is None:
                return re.compile(r"(?!)")
            parts.append(klass)
        else:
            if head == "\\":
                if not rest:
                    return re.compile(r"(?!)")
                head, rest = rest[0], rest[1:]
            parts.append(re.escape(head))
    if stars:
        # After the last star the rest must reach to the end, so there it is the end that is looked for.
        last = max(number for number, part in enumerate(parts) if part.endswith("(?>[^/]*?"))
        parts[last] = parts[last].removesuffix("(?>[^/]*?") + "[^/]*"
    return re.compile("".join(parts), re.DOTALL)


def _character_class(rest: str) -> tuple[str | None, str]:
    """The class that begins after `[`, and what follows its `]`; None for a malformed one."""
    negated, rest = rest[:1] == "^", rest.removeprefix("^")
    ranges: list[str] = []
    while rest[:1] != "]" or not ranges:
        low, rest = _class_character(rest)
        high = low
        if rest[:1] == "-":
            high, rest = _class_character(rest[1:])
        if not low or not high or not rest:
            return None, ""
        if low <= high:
            ranges.append(f"{re.escape(low)}-{re.escape(high)}")
        else:
            # Go accepts a range that is the wrong way round; nothing is in it.
            ranges.append("")
    inside = "".join(ranges)
    if not inside:
        return ("[^/]" if negated else "(?!)"), rest[1:]
    return f"(?!/)[{'^' if negated else ''}{inside}]", rest[1:]


def _class_character(rest: str) -> tuple[str, str]:
    if rest[:1] == "\\":
        rest = rest[1:]
    elif rest[:1] in {"-", "]"}:
        return "", rest
    return rest[:1], rest[1:]
