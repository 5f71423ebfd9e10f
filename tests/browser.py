"""A real Chromium, driven over a pipe by the DevTools protocol: pages at sizes and in themes, and what they ask for."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

_SAID = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded", "Page.javascriptDialogOpening")


class Page:
    """One tab. ``requests`` are the addresses that it asked for, ``said`` what it wrote on its console."""

    def __init__(self, write: Any, read: Any) -> None:
        self._write, self._read = write, read
        self._number, self._session = 0, ""
        self._rest = b""
        self.requests: list[str] = []
        self.said: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> Any:
        """What the browser answers; events that come before are kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        message |= {"sessionId": self._session} if self._session else {}
        self._write.write(json.dumps(message).encode() + b"\0")
        self._write.flush()
        while (answer := self._next()).get("id") != self._number:
            pass
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def _next(self) -> Any:
        while b"\0" not in self._rest:
            data = os.read(self._read.fileno(), 1 << 16)
            assert data, "the browser is gone"
            self._rest += data
        text, _, self._rest = self._rest.partition(b"\0")
        message = json.loads(text)
        method, params = message.get("method"), message.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method in _SAID:
            self.said.append(json.dumps(params))
        message["loaded"] = method == "Page.loadEventFired"
        return message

    def show(self, path: Path, *, width: int, dark: bool = False) -> None:
        """Load a file in a window of this width, as a telephone below 600 pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[theme])
        self.call("Page.navigate", url=path.resolve().as_uri())
        while not self._next()["loaded"]:
            pass

    def value(self, script: str) -> Any:
        """What a line of JavaScript is, in spite of the page's own policy."""
        return self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def picture(self, target: Path, *, whole: bool = True) -> None:
        """Write what it looks like, all of it or one screen, as a PNG."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        target.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """A browser without network, whose state is in a folder."""
    assert CHROMIUM, "there is no Chromium: tests/get-browser.sh installs it"
    (to_read, to_write), (from_read, from_write) = os.pipe(), os.pipe()

    options = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--disable-background-networking",
        "--remote-debugging-pipe",
        f"--user-data-dir={profile}",
    ]
    # it reads its descriptor 3 and writes to 4, which are ours under other numbers
    line = f'exec "$0" "$@" 3<&{to_read} 4>&{from_write}'
    process = subprocess.Popen(
        ["bash", "-c", line, CHROMIUM, *options, "about:blank"],
        pass_fds=(to_read, from_write),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_read)
    os.close(from_write)
    with os.fdopen(to_write, "wb") as write, os.fdopen(from_read, "rb") as read:
        try:
            yield Page(write, read)
        finally:
            with suppress(BrokenPipeError, ValueError):
                write.write(json.dumps({"id": 0, "method": "Browser.close"}).encode() + b"\0")
                write.flush()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
