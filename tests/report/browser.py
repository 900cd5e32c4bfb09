"""A headless Chromium for the page: Debian's packages `chromium` and `chromium-driver`, driven by selenium."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

needs_browser = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None,
    reason="no Chromium: install Debian's chromium and chromium-driver to test the page in a browser",
)


class Browser(Chrome):
    """Chromium with what the tests ask of it."""

    def open(self, page: Path, width: int = 1200, scheme: str = "light") -> None:
        """Load a file afresh, in a window of `width` CSS pixels, for readers who prefer `scheme`."""
        for kind in ("browser", "performance"):
            self.get_log(kind)  # reading empties it
        self.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.get(page.as_uri())

    def js(self, program: str, *arguments):
        """Run JavaScript in the page, as its own console could."""
        return self.execute_script(program, *arguments)

    def choose(self, name: str, value: str | bool) -> None:
        """Set a control of the sample browser, as a person would, by the text of its option or by its value."""
        self.js(
            """const control = document.getElementById("browser").elements[arguments[0]];
            if (control.type === "checkbox") control.checked = arguments[1];
            else if (control.tagName === "SELECT")
              control.value = [...control.options].find((option) => option.text === arguments[1]).value;
            else control.value = arguments[1];
            control.dispatchEvent(new Event("input", { bubbles: true }));""",
            name,
            value,
        )

    def show_all(self) -> None:
        self.js("""const more = document.getElementById("more"); while (!more.hidden) more.click();""")

    def requests(self) -> list[str]:
        """Addresses of all requests since `open`."""
        events = [json.loads(entry["message"])["message"] for entry in self.get_log("performance")]
        return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]

    def complaints(self) -> list[str]:
        """What the console printed since `open`."""
        return [entry["message"] for entry in self.get_log("browser")]


@contextmanager
def started(profile: Path) -> Iterator[Browser]:
    """A running browser; nothing is downloaded and no setting of the user is read.

    Args:
        profile: Empty folder for the browser's files.
    """
    assert CHROMIUM is not None and DRIVER is not None, "tests that need a browser are marked `needs_browser`"
    options = ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", f"user-data-dir={profile}"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # With the driver's path given, selenium looks for no driver to download.
    browser = Browser(options=options, service=Service(DRIVER))
    try:
        yield browser
    finally:
        browser.quit()
