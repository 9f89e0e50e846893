"""The page as text: nothing in the data can leave its element, and only the page's own scripts run."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from html.parser import HTMLParser

from rlvr.reports.page import SCRIPTS, asset, html, inert_json, pack

HOSTILE = "</script><script>alert(1)</script><!-- <img src=x onerror=alert(2)> \u2028 \ud800 {{scripts}} &lt;"


class Elements(HTMLParser):
    """Collects scripts and the attributes of all elements, as a browser would see them."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.inside = tag == "script"
        if self.inside:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.scripts[-1] += data


def parsed(text: str) -> Elements:
    found = Elements()
    found.feed(text)
    return found


def test_data_stays_in_its_element() -> None:
    plain = parsed(html("title", {}, {"more": pack([])}))
    page = parsed(html(HOSTILE.replace("\ud800", ""), {"text": HOSTILE}, {"more": pack([HOSTILE])}))
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in plain.elements]
    names = [attributes.get("id") for tag, attributes in page.elements if tag == "script"]
    assert json.loads(page.scripts[names.index("data")]) == {"text": HOSTILE}
    packed = page.scripts[names.index("packed-more")]
    assert json.loads(gzip.decompress(base64.b64decode(packed))) == [HOSTILE]


def test_json_is_ascii_without_markup() -> None:
    assert not re.search(r"[<>&]|[^ -~]", inert_json({"key<": HOSTILE}))
    assert re.fullmatch(r"[A-Za-z0-9+/=]*", pack(HOSTILE))


def test_the_policy_names_the_scripts_and_styles_of_the_page_and_nothing_else() -> None:
    page = html("title", {})
    rules = dict(rule.split(" ", 1) for rule in re.findall(r'Policy" content="([^"]*)"', page)[0].split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["connect-src"] == "'none'"
    assert "unsafe" not in str(rules)
    for tag, rule in (("script", "script-src"), ("style", "style-src")):
        texts = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts]
        assert rules[rule].split() == [f"'sha256-{each}'" for each in hashes]
    assert "connect-src 'self'" in html("title", {}, live=True)


def test_the_page_refers_to_nothing_outside() -> None:
    for tag, attributes in parsed(html("title", {})).elements:
        for name in ("src", "href", "action", "srcset"):
            assert (attributes.get(name) or "#")[:5] in ("#", "#main", "data:"), tag


def test_scripts_write_text_and_never_markup() -> None:
    markup = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|\beval\(|new Function"
    )
    for name in SCRIPTS:
        assert not markup.search(asset(name)), name
