"""A page in headless Chromium, by the DevTools protocol over two pipes; it needs no driver and no package.

The protocol: https://chromedevtools.github.io/devtools-protocol/. Messages end in a null byte.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run", "--hide-scrollbars",
    "--remote-debugging-pipe",
)  # fmt: skip
PATIENCE = 120.0  # seconds for an answer
ERRORS = ("error", "assert")


def chromium() -> str | None:
    """Return the path of a Chromium, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Tab:
    """The one tab of a browser.

    `problems` has the errors that the page logged, and `fetched` the addresses that it asked for.
    """

    def __init__(self, read: int, write: int):
        self._read, self._write, self._rest, self._number = read, write, b"", 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                return answer["result"]
            self.events.append(answer)

    def close(self) -> None:
        """End the browser."""
        self._session = None
        self.send("Browser.close")

    def _receive(self) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], max(end - time.monotonic(), 0))
            assert ready, "Chromium does not answer."
            part = os.read(self._read, 2**20)
            assert part, "Chromium has ended."
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def open(self, path: Path, width: int, height: int = 900, javascript: bool = True) -> None:
        """Show a file at a width, and wait until it is loaded."""
        self.events.clear()
        phone = {"mobile": False, "deviceScaleFactor": 1}
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, **phone)
        self.send("Emulation.setScriptExecutionDisabled", value=not javascript)
        self.send("Page.navigate", url=path.resolve().as_uri())
        self._await("Page.loadEventFired")

    def _await(self, event: str) -> None:
        while not any(each.get("method") == event for each in self.events):
            self.events.append(self._receive())

    def run(self, script: str) -> Any:
        """Return the value of an expression in the page, of a promise what it resolves to."""
        result = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def screenshot(self, path: Path, whole: bool = False) -> None:
        """Write a picture of what is seen, or of the whole page."""
        data = self.send("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def pdf(self, path: Path) -> None:
        """Print the page."""
        path.write_bytes(base64.b64decode(self.send("Page.printToPDF", printBackground=True)["data"]))

    @property
    def problems(self) -> list[Any]:
        """The errors that the page logged or threw."""
        self.run("1")  # takes what is on the way
        found = []
        for event in self.events:
            method, params = event.get("method"), event.get("params", {})
            if method == "Runtime.exceptionThrown":
                found.append(params["exceptionDetails"])
            if method == "Runtime.consoleAPICalled" and params["type"] in ERRORS:
                found.append(params["args"])
            if method == "Log.entryAdded" and params["entry"]["level"] in ERRORS:
                found.append(params["entry"])
        return found

    @property
    def fetched(self) -> list[str]:
        """The addresses that the page asked for, its own included; not what the page holds itself."""
        self.run("1")
        sent = [
            e["params"]["request"]["url"]
            for e in self.events
            if e.get("method") == "Network.requestWillBeSent"
        ]
        return [url for url in sent if not url.startswith(("data:", "blob:"))]


@contextmanager
def browser(profile: Path) -> Iterator[Tab]:
    """Start a browser with an empty profile, and end it."""
    path = chromium()
    assert path
    from_us, to_it = os.pipe()
    from_it, to_us = os.pipe()
    shell = f'exec "$0" "$@" 3<&{from_us} 4>&{to_us}'  # the browser reads from 3 and writes to 4
    command = ["bash", "-c", shell, path, *FLAGS, f"--user-data-dir={profile}"]
    process = subprocess.Popen(
        command, pass_fds=(from_us, to_us), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(from_us)
    os.close(to_us)
    try:
        tab = Tab(from_it, to_it)
        yield tab
        tab.close()
        process.wait(PATIENCE)
    finally:
        process.kill()
        process.wait()
        os.close(to_it)
        os.close(from_it)
