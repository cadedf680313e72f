"""The house: which room may know which, who may speak, and that every exception has its reason."""

import ast
import functools
import io
import re
import sys
import tokenize
import tomllib
from collections.abc import Callable, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("layers", "cache", "builder")
"""Each may import itself and those before it."""
DOORS = {
    "boto3": "cache/shared/s3.py",
    "botocore": "cache/shared/s3.py",
    "dockerfile_parse": "builder/dockerfile/reader.py",
    "isal": "layers/compress.py",
    "pathspec": "builder/context/",
    "requests": "layers/registry/",
    "rich": "builder/progress/",
    "urllib3": "layers/registry/",
    "zstandard": "layers/compress.py",
}
"""Where each third-party package is imported: a file, or a folder."""
COMES_WITH = {"botocore": "boto3", "urllib3": "requests"}
"""Packages that are part of what a dependency offers, such as the errors of its connections."""
SPEAKERS = "builder/cli/"
"""The only folder that prints, exits, and looks at the command line."""
SUPPRESSIONS = {
    "noqa": re.compile(r"# noqa: [A-Z]+\d+(, [A-Z]+\d+)* - \S.+"),
    "type: ignore": re.compile(r"# type: ignore\[[a-z-]+(, ?[a-z-]+)*\]  # \S.+"),
    "pragma": re.compile(r"# pragma: no (cover|branch) - \S.+"),
}
"""The one form of each: what exactly is let pass, and why."""

MODULES = {str(path.relative_to(ROOT)): path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))}


@functools.cache
def tree(name: str) -> ast.Module:
    """The syntax tree of a module, by its path from the root."""
    return ast.parse(MODULES[name].read_text())


def dotted(name: str) -> str:
    """`builder/cli/main.py` is imported as `builder.cli.main`."""
    return name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@functools.cache
def imports(name: str) -> frozenset[str]:
    """All that a module imports, in functions too; of `from a import b`, `a.b` if that is a module and else `a`."""
    known = {dotted(module) for module in MODULES}
    found = set()
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name}:{node.lineno}: a relative import"
            module = node.module or ""
            found |= {f"{module}.{alias.name}" if f"{module}.{alias.name}" in known else module for alias in node.names}
    return frozenset(found)


def top(module: str) -> str:
    """The first part of a dotted name."""
    return module.partition(".")[0]


def lines_of(name: str, banned: Callable[[ast.AST], bool]) -> list[str]:
    """Where a module has what is banned."""
    return [f"{name}:{getattr(node, 'lineno', 0)}" for node in ast.walk(tree(name)) if banned(node)]


def test_a_room_imports_itself_and_lower_rooms_only() -> None:
    higher = [
        f"{name} imports {module}"
        for name in MODULES
        for module in imports(name)
        if top(module) in ROOMS[ROOMS.index(top(dotted(name))) + 1 :]
    ]

    assert higher == []


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    known = {dotted(name) for name in MODULES}

    TopologicalSorter({dotted(name): imports(name) & known - {dotted(name)} for name in MODULES}).prepare()


def test_a_third_party_package_is_imported_at_its_one_door() -> None:
    ours = {*ROOMS, *sys.stdlib_module_names, "_typeshed"}

    elsewhere = [
        f"{name} imports {module}"
        for name in MODULES
        for module in imports(name)
        if top(module) not in ours and not name.startswith(DOORS.get(top(module), "nowhere"))
    ]

    assert elsewhere == []


def test_each_dependency_has_a_door() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    texts = [*project["dependencies"], *(text for extra in project["optional-dependencies"].values() for text in extra)]
    names = {re.split(r"[<>=~! \[;]", text)[0].replace("-", "_") for text in texts}

    assert names == set(DOORS) - set(COMES_WITH)


def test_data_classes_are_those_that_cost_nothing() -> None:
    """Those of the standard library, each of them compiled, would be half of the time of a build with nothing to do."""
    assert [name for name in MODULES if "dataclasses" in imports(name)] == ["layers/data.py"]


def test_only_the_command_line_prints_and_exits() -> None:
    banned = {"print", "input", "exit", "quit", "sys.exit", "sys.argv", "SystemExit"}

    def speaks(node: ast.AST) -> bool:
        return isinstance(node, ast.Name | ast.Attribute) and ast.unparse(node) in banned

    assert [line for name in MODULES if not name.startswith(SPEAKERS) for line in lines_of(name, speaks)] == []


def test_no_function_writes_a_global() -> None:
    def writes(node: ast.AST) -> bool:
        return isinstance(node, ast.Global)

    assert [line for name in MODULES for line in lines_of(name, writes)] == []


def test_a_module_says_what_it_is_for() -> None:
    assert [name for name in MODULES if tree(name).body and not ast.get_docstring(tree(name))] == []


def test_what_is_let_pass_has_a_code_and_a_reason() -> None:
    bare = [
        f"{path.relative_to(ROOT)}:{line} {comment}"
        for folder in (*ROOMS, "tests", "scripts", "examples", "bench")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line, comment in comments(path)
        for word, form in SUPPRESSIONS.items()
        if re.match(rf"#\s*{word}\b", comment) and not form.fullmatch(comment)
    ]

    assert bare == []


def comments(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of each comment in a file."""
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def test_tests_are_no_package() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_the_wheel_has_every_package() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())

    assert sorted(settings["tool"]["setuptools"]["packages"]) == sorted({dotted(str(Path(n).parent)) for n in MODULES})


def test_the_readme_lists_every_exit_status() -> None:
    table = {int(status) for status in re.findall(r"^\| (\d+) \|", (ROOT / "README.md").read_text(), re.MULTILINE)}

    carried = {
        ast.literal_eval(node.value)
        for name in MODULES
        for definition in ast.walk(tree(name))
        if isinstance(definition, ast.ClassDef)
        for node in definition.body
        if isinstance(node, ast.Assign | ast.AnnAssign) and "exit_status" in ast.unparse(node) and node.value
    }

    assert carried | {0, 130} == table
