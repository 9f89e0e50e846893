"""The report as one HTML file: styles, scripts and data in it, and a policy that forbids everything else.

Completions are hostile. Data enters the page as JSON without `<`, `>` and `&`, so it cannot end its element; scripts
put it into the document as text only; and the content security policy runs no script but those whose hash it names,
loads nothing, and sends nothing.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from rlvr.errors import RunError

STYLES = ("uPlot.css", "page.css")
SCRIPTS = ("uPlot.js", "dom.js", "charts.js", "rollouts.js", "signs.js", "main.js")
"""Assets of the page, in the order in which they are needed."""
_ESCAPES = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026"}


def html(title: str, data: Mapping[str, Any], packed: Mapping[str, str] | None = None, *, live: bool = False) -> str:
    """Return the page.

    Args:
        title: Title of the page.
        data: Content that is needed at once, as JSON values.
        packed: Name → large content by `pack`, which the page unpacks when it is needed.
        live: The page asks the server that it comes from for new content.
    """
    styles = [asset(name) for name in STYLES]
    scripts = [asset(name) for name in SCRIPTS]
    content = [_element("application/json", "data", inert_json(data))]
    content += [_element("text/plain", f"packed-{name}", value) for name, value in (packed or {}).items()]
    return _filled(
        asset("page.html"),
        policy=policy(styles, scripts, live=live),
        title=inert_text(title),
        styles="".join(f"<style>{style}</style>\n" for style in styles),
        data="".join(content),
        scripts="".join(f"<script>{script}</script>\n" for script in scripts),
    )


def policy(styles: Sequence[str], scripts: Sequence[str], *, live: bool) -> str:
    """Return the content security policy of a page with these styles and scripts in it."""
    rules = (
        "default-src 'none'",
        f"script-src {' '.join(map(_source, scripts))}",
        f"style-src {' '.join(map(_source, styles))}",
        "img-src data:",
        "connect-src 'self'" if live else "connect-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
    )
    return "; ".join(rules)


def inert_json(value: Any) -> str:
    """Return JSON text that no HTML parser reads anything into: ASCII, without `<`, `>` and `&`."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).translate(_ESCAPES)


def inert_text(text: str) -> str:
    """Return text for the content of an element."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def pack(value: Any) -> str:
    """Return a value as base64 of compressed JSON."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode("ascii"), 6, mtime=0)).decode("ascii")


@cache
def asset(name: str) -> str:
    """Return a file of the page. Raises RunError if the installation lacks it."""
    try:
        return (files("rlvr.reports") / "assets" / name).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise RunError(f"rlvr is not installed completely: {error.filename} is missing; install it again") from error


def _element(kind: str, name: str, text: str) -> str:
    return f'<script type="{kind}" id="{name}">{text}</script>\n'


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"


def _filled(template: str, **parts: str) -> str:
    """Return the template with its parts. A part that holds the name of another is not filled again."""
    pieces = template.split("{{")
    found = [pieces[0]]
    for piece in pieces[1:]:
        name, _, rest = piece.partition("}}")
        found += [parts[name], rest]
    return "".join(found)
