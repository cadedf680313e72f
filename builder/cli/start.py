"""The console script: answers from a receipt if there is one that holds, and else starts the command line.

What is imported here, and by what is imported here, is nearly all that a build with nothing to do costs.
"""

import os
import sys

from builder.cli.places import default_root
from cache.receipts import Question, find


def entry() -> None:
    """Run the command line of this process, to its end."""
    question = question_of(sys.argv[1:])
    if question is not None and answer(question, sys.argv[1:]):
        os._exit(0)
    from builder.cli.main import entry as main

    main(question)


def question_of(arguments: list[str]) -> Question | None:
    """Who asks what, where, and how it is shown; None if that cannot be said."""
    try:
        terminal = tuple(os.get_terminal_size(2)) if os.isatty(2) else ()
        streams = str(sys.stderr.encoding), str(sys.stdout.encoding)  # one of them may be closed
        return *arguments, __file__, os.getcwd(), os.geteuid(), os.uname().machine, terminal, *streams
    except (OSError, AttributeError):
        return None


def answer(question: Question, arguments: list[str]) -> bool:
    """Say again what was said before, if all is as it was then; whether that could be done."""
    receipt = find(root_of(arguments), question)
    if receipt is None or not receipt.holds(os.environ):
        return False
    for number, text in zip((2, 1), reversed(receipt.said), strict=True):
        while text:
            try:
                text = text[os.write(number, text) :]  # noqa: PLW2901 - what is left of it
            except OSError:
                return False  # main knows what to do for those who do not listen
    return True


def root_of(arguments: list[str]) -> str:
    """The store that arguments name, or the usual one."""
    for place, word in enumerate(arguments):
        if word == "--root" and place + 1 < len(arguments):
            return arguments[place + 1]
        if word.startswith("--root="):
            return word[len("--root=") :]
    return default_root(os.environ)
