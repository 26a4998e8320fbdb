"""House style that no linter checks. Each failure names the file, the line and the rule."""

from __future__ import annotations

import ast
import re
import subprocess
from collections import Counter
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENGINE_FOLDERS = ("connectors", "engine", "operators", "state")
SOURCE_FOLDERS = (*ENGINE_FOLDERS, "src")

FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 500

# Wall time, chance and the console come in through ports, so that a run can be repeated exactly.
BANNED_CALLS = re.compile(
    r"""
    time\.time(_ns)?
    | (\w+\.)*datetime\.(now|utcnow|today)
    | (\w+\.)*date\.today
    | random\.(?!Random$|SystemRandom$)\w+
    | asyncio\.get_event_loop
    | print
    """,
    re.VERBOSE,
)
# The one place where wall time enters.
CLOCK = "engine/clock.py"

# In pieces, so that this file does not contain what it looks for.
UNFINISHED_WORDS = ("TO" + "DO", "FIX" + "ME", "XX" + "X", "to" + "do!", "un" + "implemented!")
UNFINISHED = re.compile(rf"\b({'|'.join(UNFINISHED_WORDS)})(?!\w)")
MACHINE_PATHS = re.compile(
    r"(?<![\w.~-])/(?:" + "|".join(["wo" + "rk", "ro" + "ot", "ho" + "me"]) + ")/"
)
REGISTRY_HOSTS = re.compile(
    "|".join(
        re.escape(name + domain)
        for name, domain in [
            ("pypi", ".org"),
            ("files.python", "hosted.org"),
            ("repo1.maven", ".org"),
            ("repo.maven", ".apache.org"),
            ("registry.npm", "js.org"),
            ("crates", ".io"),
            ("proxy.gol", "ang.org"),
            ("--index", "-url"),
            ("--extra-index", "-url"),
        ]
    ),
    re.IGNORECASE,
)


@cache
def repository_files() -> tuple[Path, ...]:
    """Every file that is tracked, or new and not ignored; links are left out."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    paths = [ROOT / name for name in sorted(set(listing.split("\0"))) if name]
    return tuple(path for path in paths if path.is_file() and not path.is_symlink())


@cache
def rust_files() -> list[Path]:
    return [path for path in repository_files() if path.suffix == ".rs"]


def python_files(*folders: str) -> list[Path]:
    return [
        path
        for path in repository_files()
        if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in folders
    ]


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def text_of(path: Path) -> str | None:
    """The text of a file, None if it is binary."""
    content = path.read_bytes()
    return None if b"\0" in content else content.decode("utf-8")


def lines_matching(pattern: re.Pattern[str], paths: list[Path] | tuple[Path, ...]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in paths
        for number, line in enumerate((text_of(path) or "").splitlines(), start=1)
        if pattern.search(line)
    ]


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from the first statement behind the docstring to the end."""
    body = function.body
    if ast.get_docstring(function) is not None and len(body) > 1:
        body = body[1:]
    return (function.end_lineno or 0) - body[0].lineno + 1


def test_repository_is_found() -> None:
    assert ROOT / "pyproject.toml" in repository_files()
    assert len(python_files(*ENGINE_FOLDERS)) > len(ENGINE_FOLDERS)
    assert ROOT / "kernel" / "src" / "lib.rs" in rust_files()


def test_files_are_short_enough_to_read_at_once() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in [*python_files(*SOURCE_FOLDERS, "examples"), *rust_files()]
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > FILE_LINES_MAX
    }
    assert long == {}, f"more than {FILE_LINES_MAX} lines: split by what changes together"


def test_function_bodies_are_short() -> None:
    long = {
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}": body_lines(node)
        for path in python_files(*SOURCE_FOLDERS, "examples")
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and body_lines(node) > FUNCTION_LINES_MAX
    }
    assert long == {}, f"function bodies of more than {FUNCTION_LINES_MAX} lines"


def test_no_banned_calls() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node.func)}()"
        for path in python_files(*ENGINE_FOLDERS)
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and BANNED_CALLS.fullmatch(ast.unparse(node.func))
    ]
    found = [call for call in found if not call.startswith(f"{CLOCK}:")]
    assert found == [], "take a clock, a seeded random.Random or a logger as a parameter"


def test_no_pickle() -> None:
    modules = {"pickle", "cloudpickle", "dill", "shelve", "marshal"}
    found: list[str] = []
    for path in python_files(*SOURCE_FOLDERS):
        for node in ast.walk(tree_of(path)):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            if modules.intersection(name.split(".")[0] for name in names):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == [], "stored bytes must never run code: encode with msgspec"


def test_nothing_is_left_unfinished() -> None:
    files = [*python_files(*SOURCE_FOLDERS, "examples", "benchmarks"), *rust_files()]
    found = lines_matching(UNFINISHED, files)
    assert found == [], "finish it, or file an issue"


def test_every_markdown_file_has_one_title() -> None:
    titles: dict[str, int] = {}
    for path in repository_files():
        if path.suffix != ".md":
            continue
        outside_fences = re.sub(
            r"^(```|~~~).*?^\1",
            "",
            path.read_text(encoding="utf-8"),
            flags=re.DOTALL | re.MULTILINE,
        )
        titles[str(path.relative_to(ROOT))] = len(
            re.findall(r"^# \S", outside_fences, re.MULTILINE)
        )
    assert {name: count for name, count in titles.items() if count != 1} == {}


def test_decisions_have_numbers_of_their_own() -> None:
    folder = ROOT / "docs" / "decisions"
    names = [path.name for path in repository_files() if path.parent == folder]

    assert [name for name in names if not re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", name)] == []
    numbers = Counter(name[:4] for name in names)
    assert [number for number, count in numbers.items() if count > 1] == []


def test_every_test_file_tests_something() -> None:
    empty = [
        str(path.relative_to(ROOT))
        for path in python_files("tests")
        if path.name.startswith("test_") and not has_test(tree_of(path))
    ]
    assert empty == []


def has_test(tree: ast.Module) -> bool:
    """Whether a module defines a test, or takes one over from a suite of several subjects."""
    for node in ast.walk(tree):
        match node:
            case (
                ast.FunctionDef(name=name)
                | ast.AsyncFunctionDef(name=name)
                | ast.ClassDef(name=name)
            ):
                names = [name]
            case ast.Assign(targets=targets):
                names = [target.id for target in targets if isinstance(target, ast.Name)]
            case ast.ImportFrom(names=aliases):
                names = [alias.asname or alias.name for alias in aliases]
            case _:
                continue
        if any(name.startswith(("test_", "Test")) for name in names):
            return True
    return False


def test_unit_tests_have_a_subject() -> None:
    orphans = [
        str(path.relative_to(ROOT))
        for path in python_files("tests")
        if path.name.startswith("test_")
        and path.relative_to(ROOT).parts[1] in ENGINE_FOLDERS
        and not (ROOT / path.relative_to(ROOT / "tests").parts[0]).is_dir()
    ]
    assert orphans == []


def test_no_path_of_a_machine() -> None:
    assert lines_matching(MACHINE_PATHS, repository_files()) == []


def test_no_package_registry_is_named() -> None:
    found = lines_matching(REGISTRY_HOSTS, repository_files())
    assert found == [], "where packages come from is the machine's setting, not the repository's"
