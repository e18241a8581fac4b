"""One Chromium for many pages, driven over the DevTools protocol through two pipes: no driver program, no socket.

Start it once, `open` pages at a width and in a theme, `evaluate` JavaScript in them; what the console said and what
was requested since the page was opened is in `said` and `requested`.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
PATIENCE = 60.0
TROUBLE = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
LOADED = "document.readyState === 'complete' && (!window.whalebench || document.documentElement.dataset.ready)"


class Chromium:
    """A headless browser with one tab. Raises TimeoutError where it does not answer, RuntimeError where it refuses."""

    def __init__(self, folder: Path) -> None:
        assert BROWSER is not None
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        words = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--hide-scrollbars"]
        line = [BROWSER, *words, "--no-first-run", f"--user-data-dir={folder}", "about:blank"]
        # The browser reads file 3 and writes file 4, whatever these numbers are here.
        script = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", *line],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._rest, self._count, self._session = b"", 0, None
        self.said: list[str] = []
        self.requested: list[str] = []
        target = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        found = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = found["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        """End it."""
        try:
            self._session = None
            self.call("Browser.close")
        except (OSError, TimeoutError, RuntimeError):
            self._process.kill()
        self._process.wait(timeout=20)
        os.close(self._write)
        os.close(self._read)

    def open(self, page: Path, width: int, theme: str = "light", height: int = 900, fragment: str = "") -> None:
        """Load a file anew at a width, with the theme that the system prefers."""
        self.said, self.requested = [], []
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.theme(theme)
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=page.as_uri() + fragment)
        self.wait(f"location.protocol === 'file:' && {LOADED}")

    def theme(self, name: str) -> None:
        """What the system prefers from now on: light or dark."""
        feature = {"name": "prefers-color-scheme", "value": name}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def wait(self, condition: str) -> None:
        """Until the expression holds in the page."""
        end = time.monotonic() + PATIENCE
        while not self.evaluate(f"Boolean({condition})"):
            if time.monotonic() > end:
                raise TimeoutError(f"{condition} never held")
            time.sleep(0.02)

    def evaluate(self, expression: str) -> Any:
        """The expression's value as JSON data, awaited if it is a promise."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(json.dumps(found["exceptionDetails"])[:2000])
        return found["result"].get("value")

    def call(self, method: str, **parameters: Any) -> Any:
        """One command and its answer; what happens meanwhile is noted."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._write, data) :]
        while True:
            found = self._next()
            if found.get("id") == self._count:
                if "error" in found:
                    raise RuntimeError(f"{method}: {found['error']}")
                return found["result"]
            self._note(found)

    def _note(self, event: dict[str, Any]) -> None:
        if event.get("method") in TROUBLE:
            self.said.append(json.dumps(event["params"])[:500])
        elif event.get("method") == "Network.requestWillBeSent":
            self.requested.append(event["params"]["request"]["url"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], PATIENCE)
            if not ready:
                raise TimeoutError("the browser does not answer")
            found = os.read(self._read, 1 << 20)
            if not found:
                raise TimeoutError("the browser has ended")
            self._rest += found
        line, self._rest = self._rest.split(b"\0", 1)
        message: dict[str, Any] = json.loads(line)
        return message
