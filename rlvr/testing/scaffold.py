"""New packages: an installable plugin with tests, written from templates. What `rlvr new` does, as one function."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from string import Template
from typing import Literal, TypeAlias, get_args

from rlvr.errors import RequestError
from rlvr.registry import registry

Kind: TypeAlias = Literal["verifier", "dataset", "sampler", "trainer"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_REGISTERED: Mapping[Kind, str] = {
    "verifier": "verifier",
    "dataset": "prompt_source",
    "sampler": "sampler",
    "trainer": "trainer",
}
_USE: Mapping[Kind, str] = {
    "verifier": "rlvr check verifier {name}",
    "dataset": "rlvr generate MODEL --dataset {name} --limit 4 --out answers.jsonl",
    "sampler": "rlvr train --sampler {name} --steps 2",
    "trainer": "rlvr train --trainer {name} --steps 2",
}
_CODE: Mapping[Kind, Mapping[str, str]] = {
    "verifier": {"verifier.py": "verifier.py", "cases.jsonl": "cases.jsonl"},
    "dataset": {"prompts.py": "prompts.py"},
    "sampler": {"sampler.py": "sampler.py"},
    "trainer": {"trainer.py": "trainer.py"},
}
"""Kind → file of the module and its template."""


def new_plugin(kind: Kind, name: str, out: str | Path | None = None) -> Path:
    """Write an installable package with one verifier, data set, sampler or trainer, and return its folder.

    The package has a pyproject.toml, the hook that registers the name, code that works, tests and a file for CI.

    Args:
        kind: verifier, dataset, sampler or trainer.
        name: Its name for rlvr: lower-case letters, digits and hyphens.
        out: Folder to write; `rlvr-NAME` by default. It must not exist, or be empty.

    Raises RequestError if the name cannot be used, or the folder is in use.
    """
    if kind not in KINDS:
        raise RequestError(f"there is no kind {kind!r}: choose one of {', '.join(KINDS)}")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise RequestError(
            f"the name {name!r} cannot be used: write lower-case letters, digits and hyphens, as in my-name"
        )
    if name in registry().names(_REGISTERED[kind]):
        raise RequestError(f"there is a {kind} {name!r} already (rlvr plugins): choose another name")
    folder = Path(out if out is not None else f"rlvr-{name}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RequestError(f"{folder} exists: name another folder with --out")
    for path, text in _files(kind, name).items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return folder


def _files(kind: Kind, name: str) -> dict[str, str]:
    """Return path → text of the package's files."""
    module = f"rlvr_{name.replace('-', '_')}"
    values = {
        "kind": kind,
        "name": name,
        "distribution": f"rlvr-{name}",
        "module": module,
        "cls": "".join(word.capitalize() for word in name.split("-")),
        "use": _USE[kind].format(name=name),
    }
    templates = {
        "pyproject.toml": "common/pyproject.toml",
        "README.md": "common/README.md",
        ".github/workflows/test.yml": "common/test.yml",
        f"{module}/__init__.py": f"{kind}/init.py",
        **{f"{module}/{file}": f"{kind}/{template}" for file, template in _CODE[kind].items()},
        f"tests/test_{module}.py": f"{kind}/test.py",
    }
    return {f"{module}/py.typed": ""} | {
        path: Template(_template(template)).substitute(values) for path, template in templates.items()
    }


def _template(name: str) -> str:
    return (resources.files("rlvr.testing") / "templates" / f"{name}.tmpl").read_text(encoding="utf-8")
