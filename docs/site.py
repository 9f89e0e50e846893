"""Hooks of `mkdocs.yml`: the site has the pages of `docs/`, the documents that stand beside code, and a reference.

- The navigation is read from the tables of `docs/README.md`, so a page that no table lists fails the build.
- A relative link means the same file on the site as in the repository. A link to a file that is no page, such as a
  Python file, becomes its path in code type.
- The reference is made from docstrings, from the commands' own help and from the catalog of metrics.
"""

from __future__ import annotations

import importlib
import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

import typer.main
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from typer.core import TyperCommand, TyperGroup, TyperOption

import rlvr

ROOT = Path(__file__).resolve().parent.parent
BESIDE = {
    "README.md": "index.md",
    "docs/README.md": "contents.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
"""Documents outside of `docs/` by their page. `documents` adds those that stand beside code."""
ALWAYS = {"index.md", "contents.md", "changelog.md"}
"""Pages that the navigation has without being asked."""
LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")
FENCE = re.compile(r"^(```.*?^```[ \t]*$)", re.DOTALL | re.MULTILINE)
ROW = re.compile(r"^\| (?!question \|)[^|]+ \| (?P<links>.+) \|$")
MODULES = {
    "record": ("The record", "rlvr.record.schema"),
    "protocols": ("Protocols of plugins", "rlvr.protocols"),
    "hooks": ("Hooks", "rlvr.hookspecs"),
    "testing": ("Conformance kit", "rlvr.testing"),
    "loss": ("Losses", "rlvr_trainers.loss"),
    "errors": ("Errors", "rlvr.errors"),
}
"""Pages of the reference that document one module."""


def documents() -> dict[str, str]:
    """Return the site's page of every document in the repository, both as paths with slashes."""
    beside = dict(BESIDE)
    for folder in ("verifiers", "examples"):
        for readme in sorted((ROOT / folder).glob("*/README.md")):
            beside[readme.relative_to(ROOT).as_posix()] = f"{folder}/{readme.parent.name}.md"
    for result in sorted((ROOT / "benchmarks/results").glob("*.md")):
        beside[result.relative_to(ROOT).as_posix()] = f"measured/{result.name}"
    for page in sorted((ROOT / "docs").rglob("*.md")):
        name = page.relative_to(ROOT).as_posix()
        if name not in beside:
            beside[name] = name.removeprefix("docs/")
    return beside


def title_of(document: Path) -> str:
    """Return the text of a document's first heading."""
    with document.open(encoding="utf-8") as lines:
        return next(line for line in lines if line.startswith("# ")).removeprefix("# ").strip().replace("`", "")


def navigation() -> list[dict[str, list[dict[str, str]]]]:
    """Return the sections of `docs/README.md` with the pages that their tables link, in order."""
    pages = documents()
    sections: list[dict[str, list[dict[str, str]]]] = []
    for line in (ROOT / "docs/README.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            sections.append({line.removeprefix("## "): []})
        elif row := ROW.match(line):
            for link in LINK.finditer(row["links"]):
                source = posixpath.normpath(posixpath.join("docs", link["target"].partition("#")[0]))
                source = posixpath.join(source, "README.md") if (ROOT / source).is_dir() else source
                (entries,) = sections[-1].values()
                entry = {title_of(ROOT / source): pages[source]}
                if entry not in entries:  # two questions that two parts of one page answer
                    entries.append(entry)
    return sections


@event_priority(100)  # before mkdocstrings reads its configuration
def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Set the navigation, and show the reference's reader where `rlvr_trainers` is."""
    modules = Path(config.site_dir).parent / "modules"  # it follows no import hook of an editable installation
    modules.mkdir(parents=True, exist_ok=True)
    if not (modules / "rlvr_trainers").exists():
        (modules / "rlvr_trainers").symlink_to(ROOT / "trainers")
    config.plugins["mkdocstrings"].config["handlers"]["python"]["paths"] = [str(ROOT), str(modules)]
    listed = navigation()
    shown = {page for section in listed for entries in section.values() for entry in entries for page in entry.values()}
    rest = {source: page for source, page in documents().items() if page not in {*shown, *ALWAYS}}
    library = [{title_of(ROOT / source): page} for source, page in rest.items() if page.startswith("verifiers/")]
    forgotten = [source for source, page in rest.items() if not page.startswith(("measured/", "verifiers/"))]
    if forgotten:
        raise PluginError(f"no table of docs/README.md links {', '.join(forgotten)}")
    reference = [{title: f"reference/{name}.md"} for name, title in reference_titles().items()]
    config.nav = [
        {"Start here": "index.md"}, {"All pages": "contents.md"}, *listed, {"Verifiers": library},
        {"Reference": reference}, {"Changes": "changelog.md"},
    ]  # fmt: skip
    return config


def reference_titles() -> dict[str, str]:
    """Return the pages of the reference with their titles."""
    modules = {name: title for name, (title, _) in MODULES.items()}
    return {"commands": "Commands", "python": "Functions", "metrics": "Metrics"} | modules


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the documents beside code, the pictures that documents show, and the reference."""
    for source, page in documents().items():
        if not source.startswith("docs/") or page == "contents.md":
            files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    for source in documents():
        for link in LINK.finditer((ROOT / source).read_text(encoding="utf-8")):
            place = posixpath.normpath(posixpath.join(posixpath.dirname(source), link["target"]))
            if link["image"] and not place.startswith("docs/") and files.get_file_from_path(place) is None:
                files.append(File.generated(config, place, abs_src_path=str(ROOT / place)))
    for name, text in reference().items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point relative links at the site's pages."""
    pages = documents()
    sources = {page: source for source, page in pages.items()}
    source = sources.get(page.file.src_uri)
    if source is None:
        return markdown
    parts = FENCE.split(markdown)
    return "".join(part if part.startswith("```") else relinked(part, source, pages) for part in parts)


def relinked(markdown: str, source: str, pages: dict[str, str]) -> str:
    """Return the text with links that lead from `source` in the repository to the same documents on the site.

    Raises PluginError if a link leads to a file that does not exist.
    """
    start = posixpath.dirname(pages[source]) or "."

    def moved(link: re.Match[str]) -> str:
        path, _, anchor = link["target"].partition("#")
        if not path or "://" in path:
            return link[0]
        place = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        if not (ROOT / place).exists():
            raise PluginError(f"{source} links {link['target']}, which does not exist")
        if (ROOT / place).is_dir() and f"{place}/README.md" in pages:
            place = f"{place}/README.md"
        target = pages.get(place, place.removeprefix("docs/") if link["image"] else None)
        if target is None:
            shown = f"`{place}`"
            return (
                shown
                if link["text"].strip("`") in {place, path, posixpath.basename(path)}
                else f"{link['text']} ({shown})"
            )
        return f"{link['image']}[{link['text']}]({os.path.relpath(target, start)}{'#' if anchor else ''}{anchor})"

    return LINK.sub(moved, markdown)


def reference() -> dict[str, str]:
    """Return the text of the reference's pages by their names."""
    elsewhere = {module for _, module in MODULES.values()}
    functions = [
        f"::: {rlvr._HOME[name]}.{name}\n    options:\n      heading: rlvr.{name}\n      toc_label: {name}\n"
        for name in sorted(rlvr.__all__, key=str.lower)
        if rlvr._HOME[name] not in elsewhere
    ]
    metrics = importlib.import_module("rlvr.metrics").table()
    return {
        "commands": "\n".join(["# Commands", "", *commands()]),
        "python": "\n".join(
            [
                "# Functions",
                "",
                "The names of the module `rlvr`; those of [the record](record.md) have a page of their own.",
                "",
                *functions,
            ]
        ),
        "metrics": "\n".join(["# Metrics", "", *metrics]),
    } | {
        name: f"# {title}\n\n::: {module}\n    options:\n      show_root_heading: false\n"
        for name, (title, module) in MODULES.items()
    }


def commands() -> Iterator[str]:
    """Yield the lines of the page about the command line."""
    program = typer.main.get_command(importlib.import_module("rlvr.cli").app)
    assert isinstance(program, TyperGroup)
    for name, command in program.commands.items():
        assert isinstance(command, TyperCommand | TyperGroup)
        yield from described(command, f"rlvr {name}")


def described(command: TyperCommand | TyperGroup, name: str) -> Iterator[str]:
    """Yield the section of a command, its help and its options, and the sections of its subcommands."""
    usage = command.get_usage(typer.Context(command, info_name=name)).removeprefix("Usage: ")
    yield from (f"## {name}", "", "```text", usage, "```", "", (command.help or "").replace("\b", ""), "")
    options = [option for option in command.params if isinstance(option, TyperOption) and not option.hidden]
    if options:
        yield from ("| option | meaning |", "|---|---|")
    for option in options:
        flags = ", ".join(f"`{flag}`" for flag in [*option.opts, *option.secondary_opts])
        yield f"| {flags} | {' '.join((option.help or '').split()).replace('|', '&#124;')} |"
    yield ""
    if isinstance(command, TyperGroup):
        for child, below in command.commands.items():
            assert isinstance(below, TyperCommand | TyperGroup)
            yield from described(below, f"{name} {child}")
