"""Measure a report of many rollouts: size, time to write, time to open, time of a filter in Chromium.

    make test-browser                                             # once: selenium and Chromium
    .venv-browser/bin/python benchmarks/report.py                 # 100,000 rollouts; some two minutes
    .venv-browser/bin/python benchmarks/report.py --steps 2       # does it work?

The run is made up: rollouts of 20 words, 1,000 a step, no two alike, with tokens, log-probabilities and a score each. A
filter's time is that of the page, from the input to the filled list. Writes `results/report.md` beside itself.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

import rlvr

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "rlvr"))
sys.path.insert(0, str(ROOT / "docs"))

from screenshots import chromium  # noqa: E402

from report_runs import make_long_run  # noqa: E402

FILTERS = (
    ("Verdict", ("right", "wrong", "")),
    ("Search", ("carry", "carry12", "no such text", "")),
    ("Reward from", ("0.5", "")),
    ("Step from", ("2", "")),
    ("Sort by", ("reward", "tokens")),
)


def filter_times(driver: webdriver.Chrome) -> list[float]:
    """Return the milliseconds that the page takes for each filter."""
    took = []
    for label, values in FILTERS:
        place = f"//section[@id='rollouts']//label[starts-with(., '{label}')]//*[self::input or self::select]"
        field = driver.find_element(By.XPATH, place)
        for value in values:
            if field.tag_name == "select":
                Select(field).select_by_value(value)
            else:
                script = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))"
                driver.execute_script(script, field, value)
            told = driver.find_element(By.CLASS_NAME, "told").get_attribute("data-ms")
            took.append(float(told or "nan"))
    return took


def opened(driver: webdriver.Chrome, page: Path) -> float:
    """Open the page and return the seconds until it is ready."""
    driver.get("about:blank")
    begun = time.perf_counter()
    driver.get(page.as_uri())
    ready = "return document.documentElement.dataset.ready === 'true'"
    WebDriverWait(driver, 120, poll_frequency=0.02).until(lambda _: driver.execute_script(ready))
    return time.perf_counter() - begun


def measured(steps: int) -> list[str]:
    """Return the lines of the result."""
    with tempfile.TemporaryDirectory() as scratch:
        run = make_long_run(Path(scratch) / "run", steps)
        begun, cpu = time.perf_counter(), time.process_time()
        report = rlvr.report(run, out=Path(scratch) / "report.html")
        wall, cpu = time.perf_counter() - begun, time.process_time() - cpu
        driver = chromium()
        try:
            loads = [opened(driver, Path(scratch) / "report.html") for _ in range(3)]
            took = filter_times(driver)
            version = driver.capabilities["browserVersion"]
        finally:
            driver.quit()
    return [
        f"rollouts            {report.shown.total:,}, {report.shown.count:,} on the page",
        f"size                {report.size / 1e6:.1f} MB",
        f"rlvr report         {wall:.0f} s ({cpu:.0f} s of CPU)",
        f"open until ready    {statistics.median(loads):.1f} s (median of {len(loads)})",
        f"filter, median      {statistics.median(took):.0f} ms of {len(took)}",
        f"filter, slowest     {max(took):.0f} ms",
        f"machine             {os.cpu_count()} cores, {platform.machine()}, load {os.getloadavg()[0]:.0f} at the end",
        f"versions            Python {platform.python_version()}, Chromium {version}",
    ]


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100, help="thousands of rollouts")
    steps = parser.parse_args().steps
    lines = measured(steps)
    print("\n".join(lines))
    (ROOT / "benchmarks" / "results" / "report.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
