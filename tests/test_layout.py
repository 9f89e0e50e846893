"""Rules about folders, imports and exports, checked against the files."""

from __future__ import annotations

import ast
import fnmatch
import importlib
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import rlvr
from rlvr.requirements import requirements

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PARTS = {"verifiers": "rlvr_verifiers", "trainers": "rlvr_trainers", "plugins": "rlvr_plugins"}
MAPPED = {**PARTS, "datasets_cfg": "rlvr_datasets_cfg"}

# Import paths that the documents show, kept as re-exports of the rooms.
PUBLIC_PATHS = {"schema", "store", "models"}

# A room of the core imports from the lines above its own, and from its own line without going in circles. A room is a
# folder of `rlvr/`, or a module that stands beside the folders.
LAYERS = [
    {"errors", "draws", "columns", "frozen", "requirements", "validation_messages"},
    {"terminal"},
    {"files", "hookspecs", "secret_options", "settings", "metrics", "alarms"},
    {"registry"},
    {"record"},
    {"protocols"},
    {"verify"},
    {"rescore", "evaluation", "comparison", "offpolicy", "data"},
    {"bench", "run"},
    {"reports"},
    {"testing", "cli"},
    {"__main__", *PUBLIC_PATHS},
]

TOP_LEVEL = {
    *("rlvr", "verifiers", "datasets_cfg", "plugins", "trainers", "tests"),
    *("docs", "examples", "benchmarks", ".ci", ".git", ".gitignore", ".gitattributes"),
    *("pyproject.toml", "constraints.txt", "mkdocs.yml", "Makefile"),
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE"),
}

LISTS = re.compile(r"^(?:APART|PRIVILEGED) := (.+)$", re.MULTILINE)
APART = {name for names in LISTS.findall((ROOT / "Makefile").read_text()) for name in names.split()}
"""Folders of tests that run in targets of their own."""

HEAVY = {"torch", "transformers", "datasets", "sympy", "math_verify"}


def ignored(path: Path) -> bool:
    patterns = [pattern.rstrip("/") for pattern in (ROOT / ".gitignore").read_text().split()]
    return any(fnmatch.fnmatch(part, pattern) for part in path.relative_to(ROOT).parts for pattern in patterns)


@cache
def tree(path: Path) -> ast.Module:
    """Return the file's syntax tree; parsed once for all rules."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def files(folder: str, pattern: str) -> list[Path]:
    return [path for path in sorted((ROOT / folder).rglob(pattern)) if not ignored(path)]


def nodes(tree: ast.AST, late: bool) -> Iterator[ast.AST]:
    """Yield the tree's nodes; without `late`, only those that run when the module is imported."""
    for node in ast.iter_child_nodes(tree):
        function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        checker = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if late or not (function or checker):
            yield node
            yield from nodes(node, late)


def imported(path: Path, package: str = "", late: bool = True) -> Iterator[str]:
    """Return every module that a file imports; with `late`, also in functions and for type checkers.

    `package` is the dotted package of the file, for relative imports. Of `from a import b`, both a and a.b are given.
    """
    for node in nodes(tree(path), late):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def core_imports(path: Path) -> set[str]:
    """Return the core modules, by top-level name, that a file imports; names of `rlvr` itself count as their home."""
    found = set()
    for name in imported(path, "rlvr"):
        head, _, rest = name.partition(".")
        if head == "rlvr" and rest:
            home = rlvr._HOME.get(rest, name)
            found.add(home.split(".")[1])
    return found - {"__version__"}


def core_modules() -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in files("rlvr", "*.py"):
        relative = path.relative_to(ROOT / "rlvr")
        if str(relative) != "__init__.py":
            found.setdefault(relative.parts[0].removesuffix(".py"), []).append(path)
    return found


LONGEST = 60  # lines of a function


@pytest.mark.parametrize("folder", ["rlvr", *MAPPED, "benchmarks"])
def test_functions_are_short(folder: str) -> None:
    lengths = {
        f"{path.relative_to(ROOT)}: {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in files(folder, "*.py")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert not {name for name, lines in lengths.items() if lines > LONGEST}


def test_top_level_is_what_the_design_names() -> None:
    found = {path.name for path in ROOT.iterdir() if not ignored(path)}
    assert found <= TOP_LEVEL


def test_every_room_has_a_layer_and_every_layer_exists() -> None:
    assert set(core_modules()) == set().union(*LAYERS), "LAYERS says where a room stands"
    assert len(core_modules()) <= 31, "a new room is rarely the answer"


def test_the_map_of_the_core_names_every_room_once() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    table = text.partition("| `rlvr/` | holds |")[2].partition("\n\n")[0]
    rooms = "".join(line.split("|")[1] for line in table.splitlines() if line.count("|") == 3)
    assert sorted(re.findall(r"`(\w+)/?`", rooms)) == sorted(set(core_modules()) - {"__main__"})


@pytest.mark.parametrize("module", sorted(core_modules()))
def test_the_core_imports_one_way(module: str) -> None:
    (place,) = [number for number, layer in enumerate(LAYERS) if module in layer]
    below = set().union(*LAYERS[: place + 1]) - {module} if place else set()
    used = set().union(*map(core_imports, core_modules()[module])) - {module}
    assert used <= below


@pytest.mark.parametrize("name", sorted(PUBLIC_PATHS))
def test_a_public_path_only_re_exports(name: str) -> None:
    tree = ast.parse((ROOT / "rlvr" / f"{name}.py").read_text())
    kinds = {type(node) for node in tree.body}
    assert kinds <= {ast.Expr, ast.ImportFrom, ast.Assign}
    assert importlib.import_module(f"rlvr.{name}").__all__


def test_no_room_uses_a_public_path() -> None:
    """Inside the project, a name is imported from the module that defines it."""
    for folder in ("rlvr", *PARTS):
        for path in files(folder, "*.py"):
            package = ".".join([{"rlvr": "rlvr", **PARTS}[folder], *path.parent.relative_to(ROOT / folder).parts])
            assert not set(imported(path, package)) & {f"rlvr.{name}" for name in PUBLIC_PATHS}, path


def test_the_core_has_no_import_cycle() -> None:
    graph = {module: set().union(*map(core_imports, paths)) - {module} for module, paths in core_modules().items()}
    list(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("path", files("rlvr", "*.py"), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_core_imports_no_part(path: Path) -> None:
    heads = {name.partition(".")[0] for name in imported(path)}
    assert not heads & {*MAPPED, *MAPPED.values()}
    texts = [node.value for node in ast.walk(tree(path)) if isinstance(node, ast.Constant)]
    named = [text for text in texts if isinstance(text, str) and re.match(rf"({'|'.join(MAPPED.values())})[.:]", text)]
    assert not named, "a part is reached through the registry, by the name of what it offers"


@pytest.mark.parametrize("path", files("rlvr", "*.py"), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_core_imports_nothing_heavy_at_import_time(path: Path) -> None:
    assert not {name.partition(".")[0] for name in imported(path, late=False)} & HEAVY


@pytest.mark.parametrize("folder", MAPPED)
def test_parts_import_only_the_core_and_themselves(folder: str) -> None:
    own = MAPPED[folder]
    for path in files(folder, "*.py"):
        package = ".".join([own, *path.parent.relative_to(ROOT / folder).parts])
        heads = {name.partition(".")[0] for name in imported(path, package)}
        assert not heads & ({*MAPPED.values()} - {own}), f"{path} imports another part"
        assert not heads & {"verifiers", "trainers", "plugins", "datasets_cfg"}, (
            f"{path}: say {own}, or import relatively"
        )
        assert "cli" not in core_imports(path), f"{path} imports the command line"


@pytest.mark.parametrize("folder", PARTS)
def test_no_part_has_an_import_cycle(folder: str) -> None:
    """Late imports count too. A module that names its own package is no cycle."""
    graph: dict[str, set[str]] = {}
    for path in files(folder, "*.py"):
        package = ".".join([PARTS[folder], *path.parent.relative_to(ROOT / folder).parts])
        module = package if path.name == "__init__.py" else f"{package}.{path.stem}"
        graph[module] = {name for name in imported(path, package) if not f"{module}.".startswith(f"{name}.")}
    list(TopologicalSorter(graph).static_order())


def test_verifiers_and_entry_points_need_no_torch() -> None:
    paths = [*files("verifiers", "*.py"), *(ROOT / folder / "plugin.py" for folder in PARTS)]
    for path in paths:
        assert not {name.partition(".")[0] for name in imported(path)} & {"torch", "transformers", "datasets"}, path


def test_mapped_folders_are_packages_as_the_recipe_needs_them() -> None:
    for folder in PARTS:
        assert not (ROOT / folder / "__init__.py").exists(), "an __init__.py here breaks the editable installation"
    assert (ROOT / "datasets_cfg" / "__init__.py").exists(), "importlib.resources needs it in editable mode"
    for folder in ("rlvr", *MAPPED):
        assert (ROOT / folder / "py.typed").exists()


def test_packages_are_the_packages_on_disk() -> None:
    found = set()
    for folder, package in {"rlvr": "rlvr", **MAPPED}.items():
        for path in files(folder, "*.py"):
            found.add(".".join([package, *path.parent.relative_to(ROOT / folder).parts]))
    listed = PROJECT["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(found), "a package that is not listed is missing from the wheel"
    assert PROJECT["tool"]["setuptools"]["package-dir"] == {package: folder for folder, package in MAPPED.items()}


def test_each_test_folder_mirrors_a_folder() -> None:
    for path in (ROOT / "tests").rglob("test_*.py"):
        folder = path.parent.relative_to(ROOT / "tests")
        if folder.name in APART:
            continue
        assert (ROOT / folder).is_dir(), f"{path}: there is no folder {folder}"


def test_the_facade_is_one_list() -> None:
    tree = ast.parse((ROOT / "rlvr" / "__init__.py").read_text())
    (for_checkers,) = [node for node in tree.body if isinstance(node, ast.If)]
    typed = {
        alias.asname or alias.name: node.module
        for node in for_checkers.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == rlvr._HOME
    assert sorted(typed) == rlvr.__all__
    assert sorted([*rlvr.__all__, "__version__"]) == sorted(dir(rlvr))


@pytest.mark.parametrize("name", rlvr.__all__)
def test_the_facade_gives_what_its_home_has(name: str) -> None:
    home = importlib.import_module(rlvr._HOME[name])
    assert getattr(rlvr, name) is getattr(home, name)


def test_every_dunder_all_is_sorted_and_true() -> None:
    for folder, package in {"rlvr": "rlvr", **MAPPED}.items():
        for path in files(folder, "*.py"):
            if "__all__ =" in path.read_text():
                parts = path.relative_to(ROOT / folder).with_suffix("").parts
                module = importlib.import_module(".".join([package, *parts]).removesuffix(".__init__"))
                assert list(module.__all__) == sorted(module.__all__)
                assert all(hasattr(module, name) for name in module.__all__)


def test_one_version() -> None:
    assert rlvr.__version__ == PROJECT["project"]["version"] == version("rlvr")


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().split()
    return {canonicalize_name(name): pin for name, pin in (line.split("==") for line in lines)}


def test_constraints_pin_all_that_is_required_in_turn() -> None:
    """Covers `rlvr[dev]` and its transitive requirements, as installed here."""
    pinned = pins()
    waiting = [*requirements("rlvr"), *requirements("rlvr", "dev")]
    seen: set[str] = set()
    while waiting:
        needed = waiting.pop()
        name = canonicalize_name(needed.name)
        assert name in pinned, f"{name} is not in constraints.txt: make constraints"
        assert needed.specifier.contains(pinned[name], prereleases=True), f"{needed} against {pinned[name]}"
        if str(needed) not in seen:
            seen.add(str(needed))
            waiting += requirements(needed.name)
            for extra in needed.extras:
                waiting += requirements(needed.name, extra)


def test_constraints_name_no_machine() -> None:
    text = (ROOT / "constraints.txt").read_text()
    assert "+" not in text, "a local version, as in 2.13.0+cpu, exists on one index only"
    assert "/" not in text
    assert "rlvr" not in text
    assert "setuptools" in pins()


def test_no_class_name_is_used_for_two_things() -> None:
    found: dict[str, list[str]] = {}
    for path in [path for folder in ("rlvr", *PARTS) for path in files(folder, "*.py")]:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert not {name: paths for name, paths in found.items() if len(paths) > 1}


def test_declared_metadata_is_installed_metadata() -> None:
    """Otherwise, other tests run against an older installation: run `make test` again."""
    declared = {str(Requirement(text)) for text in PROJECT["project"]["dependencies"]}
    installed = {str(needed) for needed in requirements("rlvr")}
    assert declared == installed, "install again: pip install --no-deps --no-build-isolation -e ."


LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")


def prose(path: Path) -> str:
    return re.sub(r"^(```+).*?^\1", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+\s+(.*)$", prose(path), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", files(".", "*.md"), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_files_resolve(path: Path) -> None:
    for match in LINK.finditer(prose(path)):
        target = match[1] or match[2]
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        linked = (path.parent / name).resolve() if name else path
        assert linked.exists(), f"{path.name} links to {target}"
        assert linked.is_relative_to(ROOT), f"{path.name} links out of the repository: {target}"
        assert not anchor or anchor in anchors(linked), f"{path.name} links to {target}: no such heading"


def patched(call: ast.Call) -> str | None:
    """Return the attribute that a call of `monkeypatch.setattr` replaces by name; None for any other call."""
    if not isinstance(call.func, ast.Attribute) or call.func.attr != "setattr" or not call.args:
        return None
    named = [arg.value for arg in call.args[:2] if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
    return named[0].rpartition(".")[2] if named else None


def is_private(name: str) -> bool:
    """Return whether a name is private: it begins with an underscore, or is a constant."""
    return name.startswith("_") or name.isupper()


@pytest.mark.parametrize("path", files("tests", "*.py"), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_test_patches_what_is_private(path: Path) -> None:
    """Such tests break in a refactoring; pass arguments instead."""
    parsed = tree(path)
    modules = {
        (alias.asname or alias.name).partition(".")[0]
        for node in ast.walk(parsed)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    found = [name for node in ast.walk(parsed) if isinstance(node, ast.Call) and (name := patched(node))]
    found += [
        target.attr
        for node in ast.walk(parsed)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id in modules
    ]
    assert [name for name in found if is_private(name)] == []
    assert not [m for m in modules if m == "mock"], "tests use the real thing"


def test_the_files_that_conftest_names_are_there() -> None:
    named = {
        target.id: ast.literal_eval(node.value)
        for node in tree(ROOT / "tests" / "conftest.py").body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    assert not [
        place for kind in ("MODELS", "SLOW", "LONG") for place in named[kind] if not (ROOT / "tests" / place).exists()
    ]
    there = {
        node.name
        for path in files("tests", "test_*.py")
        for node in tree(path).body
        if isinstance(node, ast.FunctionDef)
    }
    assert set(named["SLOW_TESTS"]) <= there
