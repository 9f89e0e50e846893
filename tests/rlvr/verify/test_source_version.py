"""A verifier's version changes with everything that affects its verdicts, and with nothing else."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from rlvr.errors import PluginError
from rlvr.record.item import Item
from rlvr.record.schema import Task
from rlvr.verify.cache import VerdictCache
from rlvr.verify.scoring import Scorer
from rlvr.verify.source_version import code_version
from rlvr.verify.verifying import load_verifier

CHECK = "def check(completion, task): return True\n"
FILES = {
    "mine.py": "import json, rlvr\nimport svt_helper\nfrom svt_package.deep import thing\n" + CHECK,
    "svt_helper.py": "def lazy():\n    import svt_lazy\n",
    "svt_lazy.py": "VALUE = 1\n",
    "svt_package/__init__.py": "from . import sibling\n",
    "svt_package/sibling.py": "VALUE = 1\n",
    "svt_package/deep/__init__.py": "",
    "svt_package/deep/thing.py": "from ..other import VALUE\nfrom .near import VALUE as NEAR\n",
    "svt_package/deep/near.py": "VALUE = 1\n",
    "svt_package/other.py": "VALUE = 1\n",
    "svt_package/unused.py": "VALUE = 1\n",
    "unrelated.py": "VALUE = 1\n",
}


@pytest.fixture
def version_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Mapping[str, str]], str]:
    """Function that writes files and returns the version of `mine.py:check`, loaded as if by a new process."""
    monkeypatch.setattr(sys, "path", list(sys.path))

    def version_of(files: Mapping[str, str]) -> str:
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        for name in [name for name in sys.modules if name.partition(".")[0].startswith("svt_")]:
            del sys.modules[name]
        importlib.invalidate_caches()
        return load_verifier(f"{tmp_path / 'mine.py'}:check").version

    return version_of


@pytest.mark.parametrize("edited", sorted(FILES))
def test_the_version_follows_every_module_that_is_imported(
    edited: str, version_of: Callable[[Mapping[str, str]], str]
) -> None:
    before = version_of(FILES)
    assert version_of(FILES) == before
    after = version_of({edited: FILES[edited] + "# edited\n"})
    assert (after == before) == (edited in ("unrelated.py", "svt_package/unused.py"))


def test_a_file_on_its_own_has_the_hash_of_its_source(version_of: Callable[[Mapping[str, str]], str]) -> None:
    source = "import json\nimport rlvr.errors\nfrom pathlib import Path\n" + CHECK
    assert version_of({"mine.py": source}) == hashlib.sha256(source.encode()).hexdigest()[:16]


@pytest.mark.parametrize(("module", "distribution"), [("numpy", "numpy"), ("yaml", "pyyaml")])
def test_an_installed_package_counts_with_its_version(
    module: str, distribution: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = f"import {module}\n".encode()
    before = code_version(source, "mine")
    assert before != hashlib.sha256(source).hexdigest()[:16]
    real = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "0.0.1" if name.lower() == distribution else real(name)
    )
    assert code_version(source, "mine") != before


def test_declared_files_count(version_of: Callable[[Mapping[str, str]], str], tmp_path: Path) -> None:
    source = f"import rlvr\n@rlvr.verifier(files=['words.txt'])\n{CHECK}"
    before = version_of({"mine.py": source, "words.txt": "a\n"})
    assert version_of({"words.txt": "b\n"}) != before
    (tmp_path / "words.txt").unlink()
    with pytest.raises(PluginError, match=r"words.txt, which the verifier depends on, cannot be read: No such file"):
        version_of({})


def test_a_module_without_a_version_follows_its_imports(
    version_of: Callable[[Mapping[str, str]], str], tmp_path: Path
) -> None:
    version_of(FILES | {"svt_mine.py": "import svt_helper\n" + CHECK})
    before = load_verifier("svt_mine:check").version
    version_of({"svt_lazy.py": "VALUE = 2\n"})
    assert load_verifier("svt_mine:check").version != before


def test_an_edited_helper_gets_no_verdict_from_the_cache(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import svt_judge\ndef check(completion, task): return svt_judge.REWARD\n")
    rewards, versions = [], set()
    for reward in (0.25, 0.5):  # of another length: Python would run its cached bytecode
        (tmp_path / "svt_judge.py").write_text(f"REWARD = {reward}\n")
        cache = VerdictCache(tmp_path / "cache.sqlite")
        with Scorer(f"{tmp_path / 'mine.py'}:check", workers=1, cache=cache) as scorer:
            (score,) = scorer.score([Item("1", Task(answer="1"))])
        cache.close()
        rewards.append(score.reward)
        versions.add(score.version)
    assert rewards == [0.25, 0.5]
    assert len(versions) == 2
