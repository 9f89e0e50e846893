"""Versions of verifiers from their code: the source file, the local modules that it imports, and data files.

Imports are read from the source text, transitively, also those inside functions. Modules of the standard library and of
`rlvr` itself do not count. A module of an installed distribution counts with that distribution's version; every other
module is local and counts with its text. What `importlib` and the like import by computed names is not seen.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from rlvr.errors import PluginError

_INSTALLED = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib"))
_INSTALLED_FOLDERS = {"site-packages", "dist-packages"}


def code_version(source: bytes, module: str, files: Sequence[Path] = ()) -> str:
    """Return 16 hexadecimal digits that change with the code or the data that a verifier depends on.

    Args:
        source: Text of the verifier's own file. Without imports and files, the version is the hash of this alone.
        module: Name of its module, which relative imports refer to.
        files: Data files that its verdicts depend on.

    Raises:
        PluginError: A file cannot be read.
    """
    local, distributions = _dependencies(source, module)
    digest = hashlib.sha256(source)
    for name, content in sorted(local.items()):
        digest.update(f"\0module {name}\0".encode() + hashlib.sha256(content).digest())
    for name in sorted(distributions):
        digest.update(f"\0distribution {name} {importlib.metadata.version(name)}".encode())
    for file in files:
        digest.update(f"\0file {file.name}\0".encode() + hashlib.sha256(_content(file)).digest())
    return digest.hexdigest()[:16]


def _dependencies(source: bytes, module: str) -> tuple[dict[str, bytes], set[str]]:
    """Return the content of the local modules that a source imports, transitively, and the distributions it uses."""
    local: dict[str, bytes] = {}
    distributions: set[str] = set()
    queue = [(source, module)]
    seen = {module}
    while queue:
        for name in _imports(*queue.pop()):
            if name in seen:
                continue
            seen.add(name)
            spec = _find(name)
            if spec is None or spec.origin is None or not Path(spec.origin).is_file():
                continue
            path = Path(spec.origin).resolve()
            if _is_installed(path):
                distributions |= set(_distributions_of(name.partition(".")[0]))
                continue
            local[name] = _content(path)
            if path.suffix == ".py":
                # A package's own relative imports start at the package.
                queue.append((local[name], f"{name}.__init__" if spec.submodule_search_locations is not None else name))
    return local, distributions


def _imports(source: bytes, module: str) -> Iterator[str]:
    """Yield the full names of the modules that a source may import, and of the packages that contain them."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # importing it says so better
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names: Iterable[str] = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*package, *((node.module or "").split(".") if node.module else [])])
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)] if base else []
        else:
            continue
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[: i + 1]) for i in range(len(parts)))


def _find(name: str) -> ModuleSpec | None:
    """Find a module without importing its packages; None if there is none, or if it does not count."""
    top, *rest = name.split(".")
    if top in sys.stdlib_module_names or top == "rlvr":
        return None
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):  # ValueError: a module without a spec, such as `__main__`
        return None
    for i in range(len(rest)):
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(".".join([top, *rest[: i + 1]]), list(spec.submodule_search_locations))
    return spec


def _is_installed(path: Path) -> bool:
    return not _INSTALLED_FOLDERS.isdisjoint(path.parts) or any(path.is_relative_to(folder) for folder in _INSTALLED)


@cache
def _distributions_of(top: str) -> tuple[str, ...]:
    """Return the names of the distributions that install a top-level module."""
    try:
        return (importlib.metadata.distribution(top).name,)
    except importlib.metadata.PackageNotFoundError:  # the two names differ
        return tuple(importlib.metadata.packages_distributions().get(top, ()))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PluginError(f"{path}, which the verifier depends on, cannot be read: {error.strerror}") from error
