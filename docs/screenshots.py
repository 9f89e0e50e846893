"""Take pictures of a report with Chromium, for docs/report.md; refresh.py calls it with the Python of .venv-browser.

.venv-browser/bin/python docs/screenshots.py PAGE.html FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait


def chromium() -> webdriver.Chrome:
    """Return a headless Chromium, as Debian packages it."""
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--hide-scrollbars", "--force-prefers-reduced-motion"):
        options.add_argument(argument)
    options.binary_location = "/usr/bin/chromium"
    return webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))


def show(driver: webdriver.Chrome, page: Path, width: int, height: int, theme: str, place: str) -> None:
    """Open the page in a window of a size and a theme, at a place, and wait until it is drawn."""
    scheme = {"name": "prefers-color-scheme", "value": theme}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    driver.get("about:blank")
    driver.get(f"{page.resolve().as_uri()}{place}")
    ready = "return document.documentElement.dataset.ready === 'true'"
    WebDriverWait(driver, 60).until(lambda _: driver.execute_script(ready))
    driver.execute_async_script("requestAnimationFrame(() => setTimeout(arguments[0], 800))")


def main(page: Path, folder: Path) -> None:
    """Write the pictures."""
    driver = chromium()
    try:
        show(driver, page, 1240, 940, "light", "")
        driver.save_screenshot(str(folder / "report.png"))
        show(driver, page, 1240, 940, "light", "#rollouts?verdict=wrong&from=20&sort=advantage")
        driver.find_element(By.ID, "rollouts").screenshot(str(folder / "report-rollouts.png"))
        show(driver, page, 1240, 940, "dark", "#hacking")
        driver.save_screenshot(str(folder / "report-hacking.png"))
        show(driver, page, 400, 860, "light", "")
        driver.save_screenshot(str(folder / "report-phone.png"))
    finally:
        driver.quit()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
