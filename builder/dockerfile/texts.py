"""Blanks as the Dockerfile language knows them, and texts as a message may show them."""

BLANKS = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006"
    "\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
)
"""White space of Unicode, as Go's `unicode.IsSpace`; `str.isspace` counts four control characters more."""

SEPARATORS = "\t\v\f\r "
"""What stands between the words of FROM, COPY, ADD, EXPOSE and VOLUME: the ASCII blanks within a line."""

_SEPARATORS_TO_SPACES = str.maketrans(dict.fromkeys(SEPARATORS, " "))
_LONGEST_QUOTED = 80


def words_of(text: str) -> list[str]:
    """The words of a text between separators; quotes mean nothing."""
    return [word for word in text.translate(_SEPARATORS_TO_SPACES).split(" ") if word]


def first_word(text: str) -> tuple[str, str]:
    """A stripped text cut at its first separators: the word, and what follows them."""
    word = text.translate(_SEPARATORS_TO_SPACES).partition(" ")[0]
    return word, text[len(word) :].lstrip(SEPARATORS)


def quoted(text: str) -> str:
    """The text in double quotes as a message shows it: on one line, cut if long, nothing a terminal would obey."""
    shown = text if len(text) <= _LONGEST_QUOTED else text[:_LONGEST_QUOTED] + "…"
    return '"' + "".join(printable(character) for character in shown) + '"'


def printable(character: str) -> str:
    """The character itself, or an escape sequence where printing it would do harm or fail."""
    if character.isprintable():
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, as os.fsdecode keeps it
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()
