"""Debian's Chromium without a window, told what to do through a pipe.

``python -m tests.browser PAGE PICTURE`` makes the picture of a report, in columns.
"""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PROGRAM = shutil.which("chromium")
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)


class Browser:
    """One page; ``with Browser(folder for its profile) as browser``.

    Attributes:
        events: what the browser told of its own accord, in order.
    """

    def __init__(self, profile: Path) -> None:
        self.profile = profile
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> Browser:
        assert PROGRAM is not None
        theirs, ours = os.pipe()  # it reads from 3 and writes to 4
        back, their_end = os.pipe()
        script = f'exec "$@" 3<&{theirs} 4>&{their_end}'
        command = [PROGRAM, *QUIET, f"--user-data-dir={self.profile}", "about:blank"]
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", *command],
            pass_fds=(theirs, their_end),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs)
        os.close(their_end)
        self._to, self._from = os.fdopen(ours, "wb"), os.fdopen(back, "rb")
        self._left, self._number, self._session = b"", 0, ""
        pages = self("Target.getTargets")["targetInfos"]
        page = next(t["targetId"] for t in pages if t["type"] == "page")
        attached = self("Target.attachToTarget", targetId=page, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        self._session = ""
        self("Browser.close")
        self._process.wait(30)
        self._to.close()
        self._from.close()

    def __call__(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Send a command of its protocol; the answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": arguments}
        if self._session:
            message["sessionId"] = self._session
        self._to.write(json.dumps(message).encode() + b"\0")
        self._to.flush()
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                found: dict[str, Any] = answer["result"]
                return found
            self.events.append(answer)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._left:
            more = os.read(self._from.fileno(), 2**20)
            if not more:
                raise RuntimeError("the browser ended")
            self._left += more
        message, self._left = self._left.split(b"\0", 1)
        found: dict[str, Any] = json.loads(message)
        return found

    def open(self, path: Path, width: int = 1280, dark: bool = False) -> None:
        """Show a file, whole."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self("Emulation.setEmulatedMedia", features=[scheme])
        size = {"width": width, "height": 900, "deviceScaleFactor": 1}
        self("Emulation.setDeviceMetricsOverride", **size, mobile=False)
        self("Page.navigate", url=path.resolve().as_uri())
        for _ in range(200):
            if self.evaluate("document.readyState") == "complete":
                return
            time.sleep(0.05)
        raise TimeoutError(f"{path} does not load")

    def evaluate(self, script: str) -> Any:
        """The value of an expression of JavaScript's."""
        found = self("Runtime.evaluate", expression=script, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(str(found["exceptionDetails"]))
        return found["result"].get("value")

    def screenshot(self, path: Path, height: int | None = None) -> None:
        """The page as PNG, or its first ``height`` points."""
        whole = self("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": whole["width"], "scale": 1}
        clip["height"] = height or whole["height"]
        shot = self("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def complaints(self) -> list[str]:
        """What went to the console, and exceptions."""
        kinds = "Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"
        return [json.dumps(e) for e in self.events if e.get("method") in kinds]

    def requests(self) -> list[str]:
        """The addresses that were asked for."""
        sent = [
            e for e in self.events if e.get("method") == "Network.requestWillBeSent"
        ]
        return [e["params"]["request"]["url"] for e in sent]


STARTS = "activations-gradients-updates", "layers"  # of the second and third column


def picture(page: Path, out: Path) -> None:
    """The page in columns, small."""
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder, "whole.png")
        with Browser(Path(folder, "profile")) as browser:
            browser.open(page)
            browser.screenshot(shot)
            top = "document.getElementById('{}').getBoundingClientRect().top"
            starts = [0, *(round(browser.evaluate(top.format(i))) for i in STARTS)]
        whole = Image.open(shot).convert("RGB")
    ends = [*starts[1:], whole.height]
    height = max(b - a for a, b in zip(starts, ends, strict=True))
    size = len(starts) * whole.width, height
    joined = Image.new("RGB", size, whole.getpixel((1, 1)))
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        part = whole.crop((0, start, whole.width, end))
        joined.paste(part, (i * whole.width, 20 if i else 0))
    small = joined.resize((size[0] // 2, size[1] // 2), Image.Resampling.LANCZOS)
    small = small.quantize(224, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    data = io.BytesIO()
    small.save(data, "PNG", optimize=True)
    out.write_bytes(data.getvalue())


if __name__ == "__main__":
    picture(Path(sys.argv[1]), Path(sys.argv[2]))
