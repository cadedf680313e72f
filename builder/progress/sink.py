"""Where listeners write: a stream whose reader may be gone, and whose encoding may be poor."""

from typing import TextIO


class Sink:
    """Writes whole pieces of text. Losing the reader silences it: that nobody looks is no reason to end a build."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lost = False

    def write(self, text: str) -> None:
        """Write and flush."""
        if self._lost:
            return
        try:
            self._stream.write(encodable(text, self._stream.encoding))
            self._stream.flush()
        except (OSError, ValueError):  # ValueError: the stream was closed
            self._lost = True


def encodable(text: str, encoding: str | None) -> str:
    """The text with `?` for what the encoding does not have; None can hold everything."""
    return text.encode(encoding, "replace").decode(encoding) if encoding else text
