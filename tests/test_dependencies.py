"""pyproject.toml declares what the code imports, and nothing else."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from rlvr.requirements import requirements

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SHIPPED = ("rlvr", "verifiers", "trainers", "plugins", "datasets_cfg")
OURS = ("tests", "benchmarks", "examples", "docs")

IMPORTED_BY_OTHERS = {"torch.utils.tensorboard": "tensorboard"}
"""Modules that import a distribution which they do not require."""
ELSEWHERE = {"vllm", "wandb", "trackio", "mlflow", "mkdocs", "selenium", "reasoning-gym"}
"""Tested in environments of their own: `APART` in the Makefile."""
TOOLS = {
    *("build", "mypy", "pytest-randomly", "pytest-timeout", "pytest-xdist", "ruff", "setuptools", "types-pyyaml"),
    "wheel",
}
"""Development requirements that are run, not imported."""


@dataclass(frozen=True)
class Import:
    """One import of code that is neither ours nor Python's."""

    distributions: frozenset[str]
    """All distributions that install a module of this name; one of them must be declared."""
    late: bool
    """The import runs in a function or only for type checkers."""
    place: str


def names(*declared: str) -> set[str]:
    """Return the distributions named by requirement strings."""
    return {canonicalize_name(Requirement(text).name) for text in declared}


CORE = names(*PROJECT["dependencies"])
EXTRAS = {extra: names(*declared) for extra, declared in PROJECT["optional-dependencies"].items()}
OPTIONAL = set().union(*(declared for extra, declared in EXTRAS.items() if extra != "dev"))


@cache
def installed() -> dict[str, frozenset[str]]:
    """Return top-level module -> the distributions that install it."""
    found = metadata.packages_distributions().items()
    return {module: frozenset(map(canonicalize_name, distributions)) for module, distributions in found}


def nodes(tree: ast.AST, late: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """Yield every node, and whether it is skipped when the module is imported."""
    for node in ast.iter_child_nodes(tree):
        function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        checker = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        below = late or function or checker
        yield node, below
        yield from nodes(node, below)


def imports(*folders: str) -> Iterator[Import]:
    """Yield every import of third-party code in the folders' Python files."""
    files = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    helpers = {path.stem for path in files if path.relative_to(ROOT).parts[0] in OURS} | {"rlvr_wordcount"}
    helpers.discard("verifiers")  # benchmarks/verifiers.py is no helper; the name is that of a distribution
    local = {"rlvr", *(f"rlvr_{name}" for name in SHIPPED), *helpers, *sys.stdlib_module_names}
    for path in files:
        for node, late in nodes(ast.parse(path.read_text(encoding="utf-8"), str(path))):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules = [node.module]
            else:
                continue
            place = f"{path.relative_to(ROOT)}:{node.lineno}"
            for module in modules:
                head = module.partition(".")[0]
                if head not in local:
                    yield Import(installed().get(head, frozenset({canonicalize_name(head)})), late, place)
                if module in IMPORTED_BY_OTHERS:
                    yield Import(frozenset({IMPORTED_BY_OTHERS[module]}), True, place)


def outside(declared: set[str], found: Iterable[Import]) -> set[tuple[str, ...]]:
    """Return place and distributions of imports that no declared distribution installs."""
    return {(one.place, *one.distributions) for one in found if not one.distributions & declared}


def test_shipped_code_imports_only_what_is_declared() -> None:
    by_pytest = "rlvr/bench/pytest_plugin.py:"  # pytest loads this file, and nothing else does
    found = (one for one in imports(*SHIPPED) if not one.place.startswith(by_pytest))
    assert not outside(CORE | OPTIONAL, found), (
        "declare it as a dependency, or as an extra when only an option needs it"
    )


def test_what_only_an_extra_brings_is_imported_late() -> None:
    """The module loads without the extra, and then says which extra is missing."""
    assert not outside(CORE, (one for one in imports(*SHIPPED) if not one.late))


def test_every_dependency_is_imported_by_shipped_code() -> None:
    used = set().union(*(one.distributions for one in imports(*SHIPPED)))
    assert used >= CORE, "not imported: remove it from dependencies"
    for extra in EXTRAS.keys() - {"dev"}:
        assert EXTRAS[extra] <= used, f"not imported: remove it from the extra {extra}"


def test_what_tests_and_scripts_import_is_declared_for_development() -> None:
    assert not outside(CORE | EXTRAS["dev"] | ELSEWHERE, imports(*OURS))


def test_every_development_requirement_is_imported_or_run() -> None:
    used = set().union(*(one.distributions for one in imports(*OURS, *SHIPPED)))
    assert EXTRAS["dev"] - used == TOOLS
    assert EXTRAS["dev"] >= OPTIONAL - ELSEWHERE, "tests need every extra"


def test_transformers_has_an_upper_bound() -> None:
    """A new major version changes what the sampler and the checkpoints rely on: it is allowed once it is tested."""
    (needed,) = [one for one in requirements("rlvr") if one.name == "transformers"]
    assert metadata.version("transformers") in needed.specifier
    assert "6.0.0" not in needed.specifier


# --- an environment with the dependencies and no extra ---------------------------------------------------------------


def required(distribution: str, extra: str = "") -> set[str]:
    """Return the distribution and everything that it requires, transitively."""
    seen: set[tuple[str, str]] = set()
    waiting = [(distribution, extra)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) not in seen:
            seen.add((name, extra))
            needed = [*requirements(name), *(requirements(name, extra) if extra else ())]
            waiting += [(canonicalize_name(one.name), extra) for one in needed for extra in ("", *one.extras)]
    return {name for name, _ in seen}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of a virtual environment that holds the dependencies of rlvr without extras, linked from this one."""
    home = tmp_path_factory.mktemp("plain")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    (site,) = home.glob("lib/python*/site-packages")
    for name in required("rlvr"):
        distribution = metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(Path(str(distribution.locate_file(top))))
    return home / "bin" / "python"


def test_all_that_needs_no_extra_is_imported_without_extras(plain: Path, tmp_path: Path) -> None:
    """Checks `installed()` and late imports against a real environment."""
    code = """
import json
from importlib import metadata
from rlvr.registry import registry
lacking = {}
for entry in registry().entries():
    try:
        entry.load()
    except Exception as error:
        lacking[entry.name] = str(error)
print(json.dumps([lacking, sorted(found.name.lower() for found in metadata.distributions())]))
"""
    done = subprocess.run([plain, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lacking, present = json.loads(done.stdout)
    assert not {"math-verify", "matplotlib", "peft", "pytest", "tensorboard"} & set(present)
    assert {name: error.rpartition("; ")[2] for name, error in lacking.items()} == {
        "ifeval": "pip install 'rlvr[ifeval]'",
        "math-verify": "pip install 'rlvr[math-verify]'",
        "tensorboard": "pip install 'rlvr[tensorboard]'",
    }


def test_scoring_and_a_lacking_verifier_without_extras(plain: Path, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"completion": "\\\\boxed{1/2}", "answer": "0.5"}\n')

    def score(verifier: str) -> subprocess.CompletedProcess[str]:
        command = [
            plain,
            "-m",
            "rlvr",
            "score",
            "in.jsonl",
            "-v",
            verifier,
            "-o",
            f"{verifier}.jsonl",
            "--workers",
            "1",
        ]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    done = score("math")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads((tmp_path / "math.jsonl").read_text())["scores"]
    assert (found["status"], found["reward"]) == ("graded", 1.0)
    done = score("math-verify")
    assert done.returncode != 0
    assert done.stderr.endswith("; pip install 'rlvr[math-verify]'\n")
