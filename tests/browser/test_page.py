"""The report in a real browser: it opens from disk, filters, sorts, follows the keyboard, and runs nothing hostile."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

import rlvr
from report_runs import make_long_run, make_run, metrics, rollout, score
from rlvr.record.schema import Rollout
from rlvr.record.store import write_rollouts
from rlvr.reports.watch import Watcher

Browser = webdriver.Chrome
HOSTILE = (
    "</script><script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 2'><svg onload=window.hacked=3>",
    "<!--<script>window.hacked = 4</script>-->",
    "javascript:window.hacked=5 \" onmouseover='window.hacked=6' {{7*7}}",
    "safe \u202eesrever\u202c \u200bhidden\ufeff \u2066isolate\u2069",
    "\x1b[2J\x1b]0;title\x07\x9b31m clear",
    "\U0001f600 and \u2028 a line",
)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One headless Chromium for all tests, as the distribution packages it."""
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--force-prefers-reduced-motion"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.binary_location = "/usr/bin/chromium"
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))
    driver.set_window_size(1280, 900)
    yield driver
    driver.quit()


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 40 steps with lag, alarms, a shadow verifier and hostile completions."""
    lines, batches = [], []
    for i in range(40):
        more: dict[str, Any] = {"ess/token": 1 - i / 100, "kl/k3": 10.0 ** (-i / 8), "entropy": 1 / (i + 1)}
        more |= {f"lag_{'0' if i % 2 else '1-3'}/ess_token": 0.9, "time/train": 1.0, "time/sample": 2.0}
        if i % 10 == 0:
            more |= {"eval/accuracy": i / 50, "eval/accuracy_low": i / 60, "eval/accuracy_high": i / 45}
        lines.append(metrics(i, **more))
        members = [
            rollout(
                f"group-{i}",
                j,
                f"{HOSTILE[i % len(HOSTILE)]} \\boxed{{{j}}}",
                score("math", float(j == 1), reason=HOSTILE[(i + j) % len(HOSTILE)], extracted=HOSTILE[0]),
                *([score("shadow", float(i % 3 == 0))] if i % 2 else []),
                prompt=f"prompt {i} {HOSTILE[1]}",
                version=max(0, i - j),
                group_size=4,
            )
            for j in range(4)
        ]
        members[3] = members[3].model_copy(update={"scores": (score("math", None, "unparsed"),)})
        batches.append(members)
    lines[5]["alarms"] = [{"alarm": "ess", "value": 0.05, "threshold": 0.1, "consequence": "warn"}]
    return make_run(tmp_path_factory.mktemp("runs") / "first", lines, batches, trainer__lr=1e-3, note=HOSTILE[0])


@pytest.fixture(scope="session")
def page(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("page") / "report.html"
    rlvr.report(run, out=file)
    return file


@pytest.fixture
def opened(browser: Browser, page: Path) -> Iterator[Browser]:
    """The page, freshly loaded. After the test, its console has no message."""
    open_page(browser, page.as_uri())
    yield browser
    assert browser.get_log("browser") == []


def open_page(browser: Browser, url: str) -> None:
    browser.get("about:blank")
    browser.get_log("browser")
    browser.get(url)
    wait(browser, lambda: browser.execute_script("return document.documentElement.dataset.ready === 'true'"))


def wait(browser: Browser, condition: Callable[[], Any], seconds: float = 30) -> None:
    WebDriverWait(browser, seconds, poll_frequency=0.05).until(lambda _: condition())


def field(browser: Browser, label: str) -> WebElement:
    return browser.find_element(
        By.XPATH, f"//section[@id='rollouts']//label[starts-with(., '{label}')]//*[self::input or self::select]"
    )


def fill(browser: Browser, label: str, text: str) -> None:
    element = field(browser, label)
    if element.tag_name == "select":
        element.find_element(By.CSS_SELECTOR, f"option[value='{text}']").click()
    else:
        element.clear()
        element.send_keys(text)


def matching(browser: Browser) -> int:
    return int(browser.find_element(By.CLASS_NAME, "told").get_attribute("data-count") or -1)


def selected(browser: Browser) -> str:
    return browser.find_element(By.CSS_SELECTOR, ".rollout h3").text


def body(browser: Browser) -> WebElement:
    return browser.find_element(By.TAG_NAME, "body")


def test_every_section_is_there(opened: Browser) -> None:
    links = [link.text for link in opened.find_elements(By.CSS_SELECTOR, "#sections a")]
    assert links == ["Curves", "Rollouts", "Verifiers", "Reward hacking", "Configuration"]
    assert opened.find_element(By.TAG_NAME, "h1").text == "first"


def test_charts_draw_and_have_a_text_and_a_table(opened: Browser) -> None:
    opened.execute_script("document.querySelector('#curves .plot').scrollIntoView()")
    wait(opened, lambda: opened.find_elements(By.CSS_SELECTOR, "#curves .plot canvas"))
    first = opened.find_element(By.CSS_SELECTOR, "#curves .plot")
    label = first.get_attribute("aria-label") or ""
    assert label.startswith("reward (reward). first 0, last 3.9, from 0 to 3.9.")
    opened.execute_script("arguments[0].focus()", first)
    first.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert "step 2" in opened.find_element(By.CSS_SELECTOR, "#curves .readout").text
    opened.execute_script("document.querySelector('#curves details').open = true")
    wait(opened, lambda: len(opened.find_elements(By.CSS_SELECTOR, "#curves details:first-of-type tbody tr")) >= 40)


def test_filters(opened: Browser) -> None:
    assert matching(opened) == 160
    fill(opened, "Verdict", "unparsed")
    assert matching(opened) == 40
    fill(opened, "Verdict", "right")
    assert matching(opened) == 40
    fill(opened, "Step from", "31")
    assert matching(opened) == 10
    fill(opened, "Group", "group-39")
    assert matching(opened) == 1
    opened.find_element(By.XPATH, "//section[@id='rollouts']//button[.='Clear']").click()
    assert matching(opened) == 160
    fill(opened, "Lag", "1-3")
    assert 0 < matching(opened) < 160
    fill(opened, "Lag", "")
    fill(opened, "Reward from", "0.5")
    assert matching(opened) == 40
    fill(opened, "Reward from", "")
    field(opened, "Verifiers disagree").click()
    assert 0 < matching(opened) < 80


def test_search_looks_into_texts_prompts_and_ids(opened: Browser) -> None:
    for text, found in (("ONERROR", 160), ("group-7-2", 1), ("prompt 12 ", 4), ("no such text", 0)):
        fill(opened, "Search", text)
        assert matching(opened) == found, text
    assert opened.find_element(By.CSS_SELECTOR, ".rows .none").text == "No rollout matches."


def test_sorting(opened: Browser) -> None:
    def rewards() -> list[str]:
        return [each.text for each in opened.find_elements(By.CSS_SELECTOR, ".rows .line b")]

    fill(opened, "Sort by", "reward")
    assert set(rewards()) == {"0"}
    opened.find_element(By.CSS_SELECTOR, "[aria-label='Sort in the other direction']").click()
    assert rewards() == ["1"] * 40 + ["0"] * 10


def test_the_keyboard_moves_searches_and_opens_groups(opened: Browser) -> None:
    before = selected(opened)
    body(opened).send_keys("j")
    assert selected(opened) != before
    body(opened).send_keys("k")
    assert selected(opened) == before == "group-0-0"
    body(opened).send_keys(Keys.ARROW_RIGHT)
    assert selected(opened) == "group-0-1"
    body(opened).send_keys("g")
    assert selected(opened) == "Group group-0"
    assert len(opened.find_elements(By.CSS_SELECTOR, ".side .card")) == 4
    body(opened).send_keys("/")
    assert opened.switch_to.active_element == field(opened, "Search")
    opened.switch_to.active_element.send_keys("jjj")
    assert matching(opened) == 0  # letters are text here
    opened.switch_to.active_element.send_keys(Keys.ESCAPE)


def test_every_control_can_be_reached_and_is_named(opened: Browser) -> None:
    unnamed = opened.execute_script(
        """const named = (node) => node.textContent.trim() || node.getAttribute("aria-label") || node.closest("label");
           const all = [...document.querySelectorAll("button, input, select, [role], a, [tabindex='0']")];
           return all.filter((node) => !node.hidden && !named(node)).map((node) => node.outerHTML.slice(0, 120))"""
    )
    assert unnamed == []
    seen = set()
    for _ in range(40):
        body(opened).send_keys(Keys.TAB) if not seen else opened.switch_to.active_element.send_keys(Keys.TAB)
        seen.add(opened.execute_script("return document.activeElement.outerHTML.slice(0, 60)"))
    assert len(seen) > 20


def test_the_address_keeps_the_state(browser: Browser, opened: Browser) -> None:
    fill(opened, "Verdict", "wrong")
    fill(opened, "Step from", "11")
    body(opened).send_keys("j")
    address, chosen, count = opened.current_url, selected(opened), matching(opened)
    assert "#rollouts?" in address
    open_page(browser, address)
    assert (selected(browser), matching(browser)) == (chosen, count)


def test_tokens_are_shown_with_their_probabilities(opened: Browser) -> None:
    wait(opened, lambda: opened.find_elements(By.CSS_SELECTOR, ".tokens .token"))
    tokens = opened.find_elements(By.CSS_SELECTOR, ".tokens .token")
    assert [token.text for token in tokens] == ["4", "5", "6", "7", "8"]  # ids: the run has no tokenizer
    shades = [opened.execute_script("return getComputedStyle(arguments[0]).backgroundColor", token) for token in tokens]
    alphas = [float(re.findall(r"[\d.]+", shade)[3]) for shade in shades]
    assert alphas == sorted(alphas)
    opened.execute_script("arguments[0].click()", tokens[2])
    assert "id 6, log-probability -0.500 (60.7%)" in opened.find_element(By.CLASS_NAME, "token-told").text


def test_scores_have_verifier_version_reason_and_what_was_extracted(opened: Browser) -> None:
    row = opened.find_element(By.CSS_SELECTOR, ".rollout table tbody tr").text
    assert row.startswith("math 1 graded 0")
    assert HOSTILE[0] in row


def test_hostile_texts_are_inert(opened: Browser) -> None:
    for step in range(1, len(HOSTILE) + 1):
        fill(opened, "Step from", str(step))
        body(opened).send_keys("g")
    assert opened.execute_script("return window.hacked") is None
    assert opened.find_elements(By.CSS_SELECTOR, "main img, main svg:not(.key), main script, main iframe") == []
    attributes = opened.execute_script(
        "return [...document.querySelectorAll('*')].flatMap((node) => [...node.attributes].map((a) => a.name))"
    )
    assert not [name for name in attributes if name.startswith("on")]
    shown = opened.execute_script("return document.querySelector('main').textContent")
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]", shown)


def test_hidden_characters_are_shown_as_escapes(opened: Browser) -> None:
    fill(opened, "Group", "group-4")
    fill(opened, "Step from", "5")
    shown = opened.find_element(By.CSS_SELECTOR, ".rows .excerpt").text
    assert r"\u202eesrever\u202c" in shown
    fill(opened, "Group", "group-5")
    fill(opened, "Step from", "6")
    assert r"\u001b[2J" in opened.find_element(By.CSS_SELECTOR, ".rows .excerpt").text


def test_suspicious_rollouts_open_in_the_browser(opened: Browser) -> None:
    button = opened.find_element(By.CSS_SELECTOR, ".suspects button")
    wanted = button.text
    opened.execute_script("arguments[0].click()", button)
    assert selected(opened) == wanted


CONTRAST = """
const channel = (value) => (value /= 255) <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
const parse = (text) => text.match(/[\\d.]+/g).map(Number);
const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const over = (top, below) => top.slice(0, 3).map((value, i) => value * (top[3] ?? 1) + below[i] * (1 - (top[3] ?? 1)));
const background = (node) => {
  if (!node) return [255, 255, 255];
  const color = parse(getComputedStyle(node).backgroundColor);
  return (color[3] ?? 1) === 1 ? color : over(color, background(node.parentElement));
};
const worst = {};
for (const node of document.querySelectorAll("main *, header *, footer *")) {
  if (![...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim())) continue;
  if (!node.checkVisibility() || node.disabled || node.closest("option, noscript")) continue;
  const back = background(node), front = over(parse(getComputedStyle(node).color), back);
  const [high, low] = [luminance(front), luminance(back)].sort((a, b) => b - a);
  const ratio = (high + 0.05) / (low + 0.05), name = node.tagName + "." + node.className;
  worst[name] = Math.min(worst[name] ?? 99, ratio);
}
return worst;
"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_has_contrast(browser: Browser, opened: Browser, theme: str) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": theme}]}
    )
    wait(browser, lambda: opened.execute_script("return document.documentElement.dataset.theme") == theme)
    wait(opened, lambda: opened.find_elements(By.CSS_SELECTOR, ".tokens .token"))
    worst = opened.execute_script(CONTRAST)
    assert len(worst) > 20
    assert {name: round(ratio, 2) for name, ratio in worst.items() if ratio < 4.5} == {}


def test_the_theme_follows_the_system_and_the_button(browser: Browser, opened: Browser) -> None:
    def background() -> str:
        return str(opened.execute_script("return getComputedStyle(document.body).backgroundColor"))

    emulate = "Emulation.setEmulatedMedia"
    browser.execute_cdp_cmd(emulate, {"features": [{"name": "prefers-color-scheme", "value": "light"}]})
    wait(browser, lambda: background() == "rgb(255, 255, 255)")
    opened.find_element(By.ID, "theme").click()
    assert background() == "rgb(19, 21, 24)"


@pytest.mark.parametrize("width", [360, 412, 768])
def test_a_phone_scrolls_in_one_direction(browser: Browser, opened: Browser, width: int) -> None:
    size = {"width": width, "height": 800, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        wait(browser, lambda: opened.execute_script("return innerWidth") == width)
        wide = opened.execute_script(
            """const scrolls = (node) => node.closest(".scroll, nav, pre, .skip");
               const wide = (node) => !scrolls(node) && node.getBoundingClientRect().right > innerWidth + 1;
               const found = [...document.querySelectorAll("body *")].filter(wide);
               return [document.documentElement.scrollWidth, found.map((node) => node.outerHTML.slice(0, 100))]"""
        )
        assert wide == [width, []]
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_runs_are_laid_over_each_other(browser: Browser, run: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "second", [metrics(i) for i in range(20)], trainer__lr=1e-4)
    rlvr.report([run, other], out=tmp_path / "two.html")
    open_page(browser, (tmp_path / "two.html").as_uri())
    assert browser.find_element(By.TAG_NAME, "h1").text == "2 runs"
    browser.execute_script("document.querySelector('#curves .plot').scrollIntoView()")
    wait(browser, lambda: "second" in browser.find_element(By.CSS_SELECTOR, "#curves .readout").text)
    chips = browser.find_elements(By.CSS_SELECTOR, ".chips input")
    browser.execute_script("arguments[0].click()", chips[1])
    assert "second" not in browser.find_element(By.CSS_SELECTOR, "#curves .readout").text
    settings = browser.find_element(By.ID, "configuration").text
    assert "trainer.lr" in settings  # differences alone are shown at first
    assert browser.get_log("browser") == []


def test_a_hundred_thousand_rollouts_are_filtered_in_no_time(browser: Browser, tmp_path: Path) -> None:
    """The page is below 25 MB, and half of all filters take less than 200 ms, search included."""
    run = make_long_run(tmp_path / "long", steps=100)
    made = rlvr.report(run, out=tmp_path / "long.html")
    assert made.shown.total == 100_000
    assert made.size < 25_000_000
    open_page(browser, (tmp_path / "long.html").as_uri())
    assert browser.find_element(By.CSS_SELECTOR, "#rollouts .lead").text.startswith("All 100,000 rollouts")
    took = []
    for label, text in (
        *(("Verdict", each) for each in ("right", "wrong", "")),
        *(("Search", each) for each in ("carry", "carry12", "box it", "")),
        *(("Reward from", each) for each in ("0.5", "")),
        *(("Step from", each) for each in ("50", "")),
        *(("Sort by", each) for each in ("reward", "tokens")),
    ):
        fill(browser, label, text)
        took.append(float(browser.find_element(By.CLASS_NAME, "told").get_attribute("data-ms") or "nan"))
    print(json.dumps({"bytes": made.size, "shown": made.shown.count, "ms": took}))
    assert statistics.median(took) < 200
    assert browser.get_log("browser") == []


def test_what_changed_shows_both_answers(browser: Browser, tmp_path: Path) -> None:
    for name, reward in (("old", 0.0), ("new", 1.0)):
        answers = [rollout(f"q{i}", 0, HOSTILE[i], score("math", reward), prompt=f"question {i}") for i in range(3)]
        write_rollouts(tmp_path / f"{name}.parquet", answers)
    rlvr.report([tmp_path / "old.parquet", tmp_path / "new.parquet"], out=tmp_path / "page.html")
    open_page(browser, (tmp_path / "page.html").as_uri())
    changes = browser.find_element(By.ID, "changes")
    assert "3 gained" in changes.text
    assert len(changes.find_elements(By.CSS_SELECTOR, ".question .card")) == 6
    assert "100.0%" in browser.find_element(By.ID, "evaluations").text
    assert browser.execute_script("return window.hacked") is None
    assert browser.get_log("browser") == []


def test_a_watched_run_updates_and_keeps_what_the_reader_chose(browser: Browser, tmp_path: Path) -> None:
    def batch(step: int) -> list[Rollout]:
        return [rollout(f"g{step}", i, f"answer {step}", score("math", float(i))) for i in (0, 1)]

    run = make_run(tmp_path / "going", [metrics(0), metrics(1)], [batch(0), batch(1)])
    with Watcher(run, rest=0.0) as server:
        open_page(browser, server.url)
        fill(browser, "Verdict", "right")
        fill(browser, "Search", "answer")
        browser.execute_script("document.querySelector('#curves details').open = true")
        wait(browser, lambda: browser.find_element(By.ID, "live").get_attribute("data-state"))
        search = field(browser, "Search")
        write_rollouts(run / "rollouts" / "step-000002.parquet", batch(2))
        with (run / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(metrics(2)) + "\n" + '{"torn')
        wait(browser, lambda: matching(browser) == 3)
        assert field(browser, "Search") == search  # the same element: what is being typed is not lost
        assert (search.get_attribute("value"), field(browser, "Verdict").get_attribute("value")) == ("answer", "right")
        wait(browser, lambda: browser.find_elements(By.CSS_SELECTOR, "#curves details[open]"))
        browser.execute_script("document.querySelector('#curves .plot').scrollIntoView()")
        wait(browser, lambda: "0.2" in browser.find_element(By.CSS_SELECTOR, "#curves .readout").text)
        assert browser.get_log("browser") == []
    wait(browser, lambda: browser.find_element(By.ID, "live").text == "The server does not answer")


def test_a_run_its_evaluations_and_their_comparison_from_training_to_the_page(browser: Browser, tmp_path: Path) -> None:
    """Train the embedded model, evaluate two checkpoints, compare them, make the report and click through it."""
    settings = {"trainer": "grpo-off", "verifier": "math", "steps": 8, "checkpoint.every": 4, "checkpoint.keep": 2}
    small = {"eval.questions": 20, "verifier.workers": 1, "model.device": "cpu", "trainer.push_every": 2}
    rlvr.train(settings | small, out=tmp_path / "run")
    files = []
    for step in (4, 8):
        file = tmp_path / f"step-{step}.parquet"
        found = rlvr.evaluate(
            tmp_path / "run", out=file, n=4, limit=30, checkpoint=step, config={"verifier.workers": 1}
        )
        assert [len(each.questions) for each in found.sets] == [30]
        files.append(file)
    compared = rlvr.compare(*files, of="policies")
    (difference,) = compared.differences
    assert difference.better + difference.worse + difference.unchanged == 30
    assert len(compared.claims) == 1
    rlvr.report([tmp_path / "run", *files], out=tmp_path / "page.html")
    open_page(browser, (tmp_path / "page.html").as_uri())
    for link in browser.find_elements(By.CSS_SELECTOR, "#sections a"):
        browser.execute_script("arguments[0].click()", link)
        name = (link.get_attribute("href") or "").partition("#")[2]
        assert browser.find_element(By.ID, name).is_displayed()
    changes = browser.find_element(By.ID, "changes").text
    assert "gained" in changes
    assert matching(browser) > 8 * 256
    fill(browser, "Verdict", "right")
    wait(browser, lambda: 0 < matching(browser) < 8 * 256)
    body(browser).send_keys("j")
    assert selected(browser)
    assert browser.get_log("browser") == []
