"""The text of RUN --mount: comma-separated values, as Go's encoding/csv reads one record."""


class MountError(ValueError):
    """The text is not a list of fields."""

    hint = "write --mount=type=TYPE,target=PATH,KEY=VALUE"


def mount_fields(text: str) -> tuple[tuple[str, str | None], ...]:
    """Keys, in lower case, with their values; None where a field is a key alone, such as `rw`."""
    if not text:
        raise MountError("it is empty")
    fields = []
    for part in _comma_separated(text):
        key, equals, value = part.partition("=")
        fields.append((key.lower(), value if equals else None))
    return tuple(fields)


def _comma_separated(text: str) -> list[str]:
    """The parts between commas; one that begins with a double quote may hold commas, and quotes if doubled."""
    parts = []
    at = 0
    while True:
        if text.startswith('"', at):
            part, at = _quoted_part(text, at + 1)
        else:
            end = text.find(",", at)
            end = len(text) if end < 0 else end
            part, at = text[at:end], end
            if '"' in part:
                raise MountError("a double quote within a field")
        parts.append(part)
        if at == len(text):
            return parts
        if text[at] != ",":
            raise MountError("text after a closing quote")
        at += 1


def _quoted_part(text: str, at: int) -> tuple[str, int]:
    pieces = []
    while True:
        end = text.find('"', at)
        if end < 0:
            raise MountError("a quote is never closed")
        pieces.append(text[at:end])
        at = end + 1
        if not text.startswith('"', at):
            return "".join(pieces), at
        pieces.append('"')
        at += 1
