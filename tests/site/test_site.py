"""The documents as a web site: built from nothing, complete, and readable without a network."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

import pytest
from mkdocs.exceptions import PluginError

import rlvr
from rlvr import metrics
from rlvr.verify.verifying import module_from_file

ROOT = Path(__file__).parents[2]


class Links(HTMLParser):
    """Collect a page's ids, the targets of its links, and what it loads by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.targets: list[str] = []
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value for name, value in attrs if value}
        self.ids |= {found["id"]} if "id" in found else set()
        if tag == "a" and "href" in found:
            self.targets.append(found["href"])
        elif tag == "link" and "href" in found and found.get("rel") not in ("canonical", "prev", "next"):
            self.loaded.append(found["href"])
        elif tag in ("script", "img", "iframe") and "src" in found:
            self.loaded.append(found["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("built") / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(folder)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not re.search(r"^(WARNING|ERROR)", done.stderr, re.MULTILINE), done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Links]:
    found = {}
    for path in sorted(site.rglob("*.html")):
        links = Links()
        links.feed(path.read_text(encoding="utf-8"))
        found[path] = links
    return found


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    path = ROOT / "docs/site.py"
    return module_from_file(path, path.read_bytes())


def test_every_document_is_a_page_and_in_the_navigation(site: Path, pages: dict[Path, Links]) -> None:
    shown = {(site / unquote(urlsplit(target).path)).resolve() for target in pages[site / "index.html"].targets}
    documents = [path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")]
    expected = {(site / path).with_suffix(".html") for path in documents if str(path) != "README.md"}
    expected |= {site / "contents.html", site / "contributing.html", site / "changelog.html"}
    folders = {path.parent for path in expected if path.name == "README.html"}
    expected = {path for path in expected if path.name != "README.html"} | {path / "index.html" for path in folders}
    assert expected <= pages.keys()
    assert {path.resolve() for path in expected} <= shown


def test_every_link_within_the_site_leads_somewhere(site: Path, pages: dict[Path, Links]) -> None:
    def broken() -> Iterator[str]:
        for page, links in pages.items():
            for target in links.targets:
                parts = urlsplit(target)
                if parts.scheme or (page.name == "404.html"):
                    continue
                file = (page.parent / unquote(parts.path)).resolve() if parts.path else page
                file = file / "index.html" if file.is_dir() else file
                if not file.is_file() or (
                    parts.fragment and file in pages and unquote(parts.fragment) not in pages[file].ids
                ):
                    yield f"{page.relative_to(site)}: {target}"

    assert sum(len(links.targets) for links in pages.values()) > 1000
    assert not list(broken())


def test_no_page_loads_anything_from_elsewhere(pages: dict[Path, Links]) -> None:
    loaded = {target for links in pages.values() for target in links.loaded}
    assert loaded
    assert not {target for target in loaded if urlsplit(target).netloc}


def test_the_reference_has_every_public_name_metric_and_command(site: Path) -> None:
    functions = "".join(
        (site / f"reference/{name}.html").read_text(encoding="utf-8") for name in ("python", "record", "hooks")
    )
    missing = {name for name in rlvr.__all__ if f'id="{rlvr._HOME[name]}.{name}"' not in functions}
    assert missing == {"hookimpl"}  # an object of pluggy; docs/plugins.md explains it
    listed = (site / "reference/metrics.html").read_text(encoding="utf-8")
    names = re.findall(r"^\| `([^`]+)`", "\n".join(metrics.table()), re.MULTILINE)
    assert len(names) > 50
    assert not {name for name in names if f"<code>{name}</code>" not in listed}
    commands = (site / "reference/commands.html").read_text(encoding="utf-8")
    asked = subprocess.run(
        [sys.executable, "-m", "rlvr", "--help"], capture_output=True, text=True, check=True, env={"COLUMNS": "100"}
    )
    shown = re.findall(r"^│ ([a-z][\w-]*) ", asked.stdout, re.MULTILINE)
    assert len(shown) > 10
    assert not {name for name in shown if f'id="rlvr-{name}"' not in commands}


def test_a_link_means_the_same_file_as_in_the_repository(hooks: ModuleType) -> None:
    pages = hooks.documents()

    def relinked(text: str, source: str = "docs/verifiers/sql.md") -> str:
        return str(hooks.relinked(text, source, pages))

    assert relinked("[a](../scoring.md#resume)") == "[a](../scoring.md#resume)"
    assert relinked("[a](../../README.md)") == "[a](../index.md)"
    assert relinked("[a](../../examples/revisiting_grpo)") == "[a](../examples/revisiting_grpo.md)"
    assert relinked("[the hooks](../../rlvr/hookspecs.py)") == "the hooks (`rlvr/hookspecs.py`)"
    assert relinked("[`rlvr/hookspecs.py`](../../rlvr/hookspecs.py)") == "`rlvr/hookspecs.py`"
    assert relinked("[a](https://example.org/x.md), [b](#c)") == "[a](https://example.org/x.md), [b](#c)"
    with pytest.raises(PluginError, match=r"docs/verifiers/sql\.md links nothing\.md, which does not exist"):
        relinked("[a](nothing.md)")
