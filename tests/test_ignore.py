"""What .dockerignore leaves out, against outcomes recorded with BuildKit and one by one."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from builder.context.ignore import IgnoreFile, Judge, Verdict, find_ignore_file, parse
from builder.context.local import LocalTree
from builder.context.patterns import BrokenPatternError, translate
from builder.errors import ContextError
from builder.steps.tree import walk
from cache.db import Database
from cache.files import FileTable
from layers.entry import Kind

RECORDED = json.loads((Path(__file__).parent.parent / "testdata" / "ignore.json").read_text())
CASES = [pytest.param(case, id=json.dumps(case["rules"])) for case in RECORDED["cases"]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that all recorded cases share."""
    root = tmp_path_factory.mktemp("context")
    for name in [*RECORDED["folder"], "Dockerfile", ".dockerignore"]:
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
    for name, target in RECORDED["links"].items():
        (root / name).symlink_to(target)
    return root


@pytest.fixture
def files(tmp_path: Path) -> FileTable:
    return FileTable(Database(str(tmp_path / "cache.db")))


def rules(text: str) -> IgnoreFile:
    return IgnoreFile(".dockerignore", text.encode())


def leaves(tree: LocalTree) -> set[str]:
    """All that is in the tree; folders, with a slash, only if nothing is in them."""
    top = tree.lookup("")
    assert top is not None
    found = {entry.path: entry for entry in walk(tree, top) if entry.path}
    parents = {path.rpartition("/")[0] for path in found}
    return {
        path + "/" * (entry.kind is Kind.DIRECTORY)
        for path, entry in found.items()
        if entry.kind is not Kind.DIRECTORY or path not in parents
    }


@pytest.mark.parametrize("case", CASES)
def test_recorded_ignore_file_leaves_out_what_buildkit_leaves_out(
    case: dict[str, Any], folder: Path, files: FileTable
) -> None:
    if "broken" in case:
        with pytest.raises(ContextError) as caught:
            LocalTree(str(folder), files, rules(case["rules"]))
        assert caught.value.location is not None
        assert caught.value.location.first == case["broken"]
        return
    everything = leaves(LocalTree(str(folder), files))
    expected = set(case["kept"]) if "kept" in case else everything - set(case["missing"]) | set(case.get("bare", ()))

    seen = leaves(LocalTree(str(folder), files, rules(case["rules"])))

    assert seen == expected


def test_comments_blanks_and_marks_are_dropped_from_lines() -> None:
    text = "\ufeff# comment\n\n  /a/./b/  \r\n ! c \n #kept\n//d\n"

    found = [(rule.text, rule.line) for rule in parse(rules(text))]

    assert found == [("a/b", 3), ("!c", 4), ("#kept", 5), ("d", 6)]


def test_exclamation_mark_alone_is_an_error_at_its_line() -> None:
    with pytest.raises(ContextError, match="needs a pattern") as caught:
        parse(rules("a\n!\n"))

    assert caught.value.location is not None
    assert (caught.value.location.file, caught.value.location.first) == (".dockerignore", 2)


@pytest.mark.parametrize("pattern", ["[", "[]a]", "[a-", "[a-]", "[-a]", "[z-a]", "[^]", "a\\", "\\d", "[a\\"])
def test_broken_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(BrokenPatternError):
        translate(pattern)


@pytest.mark.parametrize(
    ("text", "path", "verdict"),
    [
        ("d\n!d/keep/x", "d", Verdict.EXCLUDED_ALONE),
        ("d\n!d/keep/x", "d/keep", Verdict.EXCLUDED_ALONE),
        ("d\n!d/keep/x", "d/keep/x", Verdict.INCLUDED),
        ("d\n!d/keep/x", "d/other", Verdict.EXCLUDED),
        ("d\nnode_modules\n!d/*.md", "node_modules", Verdict.EXCLUDED),
        ("node_modules/", "node_modules/left/index.js", Verdict.EXCLUDED),
        ("[^a]", "b", Verdict.EXCLUDED),
        ("[^a]", "a", Verdict.INCLUDED),
        ("*.md", "sub/a.md", Verdict.INCLUDED),
        ("**.md", "sub/a.md", Verdict.EXCLUDED),
        ("[*]", "*", Verdict.EXCLUDED),
        ("[*]", "a", Verdict.INCLUDED),
        ("a\n", "a\nb", Verdict.INCLUDED),
    ],
)
def test_verdict_on_a_path(text: str, path: str, verdict: Verdict) -> None:
    judge = Judge(rules(text))

    assert judge.judge(path) is verdict


def test_line_that_is_not_asked_about_a_folder_does_not_count_below_it() -> None:
    """`d` was excluded already when the third line came, so what the second brings back below it stays."""
    judge = Judge(rules("d\n!d/f\nd"))

    assert judge.judge("d/f") is Verdict.INCLUDED


def test_ignore_file_beside_the_dockerfile_goes_before_the_one_of_the_context(tmp_path: Path) -> None:
    (tmp_path / ".dockerignore").write_text("general")
    (tmp_path / "web.Dockerfile.dockerignore").write_text("special")

    special = find_ignore_file(str(tmp_path), str(tmp_path / "web.Dockerfile"))
    general = find_ignore_file(str(tmp_path), str(tmp_path / "Dockerfile"))

    assert special is not None
    assert general is not None
    assert (special.name, special.data) == ("web.Dockerfile.dockerignore", b"special")
    assert (general.name, general.data) == (".dockerignore", b"general")


def test_context_without_ignore_file_has_none(tmp_path: Path) -> None:
    assert find_ignore_file(str(tmp_path)) is None


def test_ignore_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / ".dockerignore").mkdir()

    with pytest.raises(ContextError, match="cannot be read"):
        find_ignore_file(str(tmp_path))


def test_second_look_at_a_context_does_not_import_pathspec(folder: Path, tmp_path: Path) -> None:
    database = str(tmp_path / "cache.db")
    tree = LocalTree(str(folder), FileTable(Database(database)), rules("d\n!d/e"))
    first = leaves(tree)
    tree.save()
    program = (
        "import sys\n"
        "from builder.context.ignore import IgnoreFile\n"
        "from builder.context.local import LocalTree\n"
        "from cache.db import Database\n"
        "from cache.files import FileTable\n"
        "tree = LocalTree(sys.argv[1], FileTable(Database(sys.argv[2])), IgnoreFile('x', b'd\\n!d/e'))\n"
        "waiting = ['']\n"
        "while waiting:\n"
        "    waiting += [entry.path for entry in tree.children(waiting.pop())]\n"
        "print(tree.lookup('d/e/a') is not None, tree.lookup('d/a'), 'pathspec' in sys.modules)\n"
    )

    result = subprocess.run(
        [sys.executable, "-c", program, str(folder), database],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent.parent,
    )

    assert "d/e/a" in first
    assert result.stdout == "True None False\n"
