"""Put the real output of real commands into the documents.

    python docs/refresh.py                                  # every page
    python docs/refresh.py README.md docs/scoring.md        # every block of some pages
    python docs/refresh.py README.md --only "rlvr plugins"  # blocks whose command contains this text
    python docs/refresh.py --skip "make test"               # all blocks but those

A block is a fence after a line `<!-- run: COMMAND -->`. The command runs in a shell, in a scratch folder per document
(a later block may use what an earlier one wrote) with the repository's `examples/` linked into it. With `<!-- run at
the root: COMMAND -->` it runs in the repository. Its standard output and error replace the text in the fence, except
for first lines that begin with `$`: they show the reader the command, without the plumbing around it.

- `<!-- python -->` before a Python fence and an output fence: the code runs in the scratch folder, and what it prints
  replaces the output. The code of a page is one session: later blocks see the names of earlier ones.
- `<!-- pictures: PAGE -->` has `screenshots.py` take pictures of a report that earlier commands wrote. Without Chromium
  and `.venv-browser` (`make test-browser` makes it), the old pictures stay.
- `<!-- include: FILE -->` up to `<!-- end -->` is replaced by the file's text.
- `<!-- table: MODULE -->` up to `<!-- end -->` is replaced by the lines of `MODULE.table()`.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from itertools import takewhile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(
    r"(<!-- run(?P<root> at the root)?: (?P<command>.+?) -->\n+```\w*\n)(?P<output>.*?)(```\n)", re.DOTALL
)
PYTHON = re.compile(
    r"(?P<head><!-- python -->\n+```python\n(?P<code>.*?)```\n+```text\n)(?P<output>.*?)(?P<tail>```\n)", re.DOTALL
)
TABLE = re.compile(r"(<!-- table: ([\w.]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
PICTURES = re.compile(r"<!-- pictures: (.+?) -->")
INCLUDE = re.compile(r"(<!-- include: (.+?) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def take_pictures(page: Path) -> None:
    """Take the pictures of a report that `docs/report.md` shows, if there is a browser."""
    python = ROOT / ".venv-browser" / "bin" / "python"
    if not (python.exists() and shutil.which("chromium") and shutil.which("chromedriver")):
        print("no pictures were taken: Chromium or .venv-browser is missing; make test-browser installs both")
        return
    subprocess.run([python, ROOT / "docs" / "screenshots.py", page, ROOT / "docs" / "pictures"], check=True)


def output_of(command: str, folder: Path) -> str:
    """Return what a person would see, with paths relative to the folder and without lines of progress.

    Raises SystemExit if the command fails, so no failure is ever published.
    """
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environment |= {"COLUMNS": "110", "NO_COLOR": "1", "RLVR_PROGRESS_SECONDS": "86400"}
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise SystemExit(f"{command}\n{done.stdout}\nexit code {done.returncode}")
    return done.stdout.replace(f"{folder.resolve()}/", "").rstrip("\n") + "\n"


def commands_of(block: str) -> str:
    """Return the first lines of a block that show a command: they begin with `$`."""
    return "".join(takewhile(lambda line: line.startswith("$ "), block.splitlines(keepends=True)))


def table_of(module: str) -> str:
    """Return the Markdown table that a module makes of its entries."""
    return "\n".join(importlib.import_module(module).table())


def outputs_of(codes: list[str], folder: Path) -> list[str]:
    """Run Python snippets as one session and return what each prints, as a notebook would show it."""
    mark = "\0end of a snippet\0"
    session = "\n".join(f"{code}\nprint({mark!r})" for code in codes)
    (folder / "session.py").write_text(session, encoding="utf-8")
    printed = output_of("python session.py", folder).split(f"{mark}\n")
    assert len(printed) == len(codes) + 1, printed
    return printed[:-1]


def pages() -> list[Path]:
    """Return the README and the pages below `docs/`."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def refresh(document: Path, only: str = "", skip: str | None = None) -> None:
    """Rewrite the document's blocks whose command contains `only` and does not contain `skip`."""
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "examples").symlink_to(ROOT / "examples")

        def replaced(match: re.Match[str]) -> str:
            if only not in match["command"] or (skip is not None and skip in match["command"]):
                return match[0]
            print(match["command"], flush=True)
            shown = output_of(match["command"], ROOT if match["root"] else Path(scratch))
            return match[1] + commands_of(match["output"]) + shown + match[5]

        text = BLOCK.sub(replaced, document.read_text(encoding="utf-8"))
        if not only and (snippets := list(PYTHON.finditer(text))):
            printed = iter(outputs_of([snippet["code"] for snippet in snippets], Path(scratch)))
            text = PYTHON.sub(lambda match: match["head"] + next(printed) + match["tail"], text)
        if not only:
            for match in PICTURES.finditer(text):
                take_pictures(Path(scratch) / match[1])
    text = TABLE.sub(lambda match: f"{match[1]}\n{table_of(match[2])}\n\n{match[4]}", text)
    text = INCLUDE.sub(lambda match: f"{match[1]}\n{(ROOT / match[2]).read_text(encoding='utf-8')}\n{match[4]}", text)
    document.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("documents", type=Path, nargs="*", help="all pages if none is named")
    parser.add_argument("--only", default="", help="blocks whose command contains this text")
    parser.add_argument("--skip", help="all blocks but those whose command contains this text")
    arguments = parser.parse_args()
    for path in arguments.documents or pages():
        refresh(path, arguments.only, arguments.skip)
