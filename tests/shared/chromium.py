"""Chromium without a window, over its DevTools protocol: what a page looks like, and what it does."""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

__all__ = ["Browser", "chromium"]

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run")
#: The descriptors that Chromium reads commands from and writes answers to.
_PIPE = 'exec "$@" 3</dev/fd/{reads} 4>/dev/fd/{writes}'
#: What a page must not do; `file:` is the page itself.
_COMPLAINTS = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")


def chromium() -> str | None:
    """Return Chromium's path, or None where there is none."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


class Browser:
    """A browser with one page; use it as a context manager.

    Args:
        profile: an empty folder for its profile.
        seconds: how long it may take to answer.
    """

    def __init__(self, profile: Path, seconds: float = 120) -> None:
        path = chromium()
        assert path is not None
        commands, self._out = os.pipe()
        self._in, answers = os.pipe()
        pipe = _PIPE.format(reads=commands, writes=answers)
        flags = [*_FLAGS, "--remote-debugging-pipe", f"--user-data-dir={profile}"]
        self._process = subprocess.Popen(
            ["sh", "-c", pipe, "sh", path, *flags],
            pass_fds=(commands, answers),
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        self._seconds, self._numbers, self._rest = seconds, itertools.count(1), b""
        self._events: list[dict[str, Any]] = []
        self._session: str | None = None
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._out)  # the browser ends when the pipe does
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)

    def open(self, page: Path, width: int, height: int = 900, *, dark: bool = False) -> None:
        """Load a page in a window of some size, in light or dark mode."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        self._events.clear()
        self._call("Page.navigate", url=page.resolve().as_uri())
        self._wait_for("Page.loadEventFired")

    def evaluate(self, script: str) -> Any:
        """Return the value of an expression of JavaScript."""
        found = self._call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def complaints(self) -> list[str]:
        """Return the errors and warnings of the page since it was opened."""
        return [json.dumps(e["params"]) for e in self._events if e["method"] in _COMPLAINTS]

    def requests(self) -> list[str]:
        """Return the addresses that the page asked for since it was opened, itself among them."""
        asked = [e["params"] for e in self._events if e["method"] == "Network.requestWillBeSent"]
        return [params["request"]["url"] for params in asked]

    def screenshot(self, clip: Mapping[str, float] | None = None) -> bytes:
        """Return a PNG of the window, or of a rectangle of the page (x, y, width, height)."""
        area = {"clip": {**clip, "scale": 1}, "captureBeyondViewport": True} if clip else {}
        return base64.b64decode(self._call("Page.captureScreenshot", format="png", **area)["data"])

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        said: dict[str, Any] = {"id": number, "method": method, "params": params}
        if self._session is not None:
            said["sessionId"] = self._session
        os.write(self._out, json.dumps(said).encode() + b"\0")
        while (answer := self._read()).get("id") != number:
            self._events.append(answer)
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def _wait_for(self, event: str) -> None:
        while not any(e["method"] == event for e in self._events):
            self._events.append(self._read())

    def _read(self) -> dict[str, Any]:
        """Return the next message."""
        end = time.monotonic() + self._seconds
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], max(end - time.monotonic(), 0))
            part = os.read(self._in, 1 << 16) if ready else b""
            if not part:
                raise RuntimeError("Chromium does not answer" if not ready else "Chromium ended")
            self._rest += part
        text, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        return message
