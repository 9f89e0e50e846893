"""Fixtures for the core's tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, on_path: Callable[[Path], None]) -> Install:
    """Function that installs distributions in pip's layout: modules and a dist-info folder in a directory on
    `sys.path`."""
    site = tmp_path / "site"
    site.mkdir()
    on_path(site)

    def install(name: str, entry_points: str, metadata: str = "", version: str = "1.0", **modules: str) -> Path:
        info = site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n{dedent(metadata)}")
        (info / "entry_points.txt").write_text(f"[rlvr]\n{dedent(entry_points)}")
        for module, source in modules.items():
            (site / f"{module}.py").write_text(dedent(source))
        return site

    return install
