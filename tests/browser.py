"""Headless Chromium for tests of pages: opens one, types, presses and reads, as a person does."""

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run")
PIPE = "--remote-debugging-pipe"  # on the file descriptors 3 and 4 of the browser
SHELL = 'exec "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1'
PATIENCE = 60  # seconds until a browser that still runs is killed


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of ``folder`` on a server of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Browser:
    """One page of a browser whose files are in ``profile``; driven by the DevTools protocol.

    Messages are JSON that a zero byte ends: https://chromedevtools.github.io/devtools-protocol.
    """

    def __init__(self, profile: Path) -> None:
        command = [str(CHROMIUM), *OPTIONS, PIPE, f"--user-data-dir={profile}"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(["sh", "-c", SHELL, "sh", *command], **pipes)
        self.timer = threading.Timer(PATIENCE, self.process.kill)
        self.timer.start()
        self.count, self.received, self.session = 0, b"", {}
        self.events: list[dict[str, Any]] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self.session = {"sessionId": attached["sessionId"]}

    def send(self, method: str, **params: object) -> dict[str, Any]:
        """The browser's answer to ``method``. What it tells before is added to ``events``."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": params, **self.session}
        os.write(self.process.stdin.fileno(), json.dumps(message).encode() + b"\0")  # pyright: ignore
        while (answer := self.receive()).get("id") != self.count:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def receive(self) -> dict[str, Any]:
        while b"\0" not in self.received:
            part = os.read(self.process.stdout.fileno(), 2**20)  # pyright: ignore
            assert part, "the browser has ended"
            self.received += part
        text, _, self.received = self.received.partition(b"\0")
        return json.loads(text)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript ``expression``, or what its promise becomes."""
        options = {"awaitPromise": True, "returnByValue": True, "userGesture": True}
        answer = self.send("Runtime.evaluate", expression=expression, **options)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, condition: str) -> None:
        """Wait until the JavaScript expression ``condition`` is true."""
        while not self.evaluate(condition):
            time.sleep(0.02)

    def open(self, address: str) -> None:
        """Open the page at ``address`` and wait until it is complete."""
        self.evaluate("document.title = 'before'")
        self.send("Page.navigate", url=address)
        self.until("document.title !== 'before' && document.readyState === 'complete'")

    def resize(self, width: int, height: int = 844) -> None:
        """Show the page as on a screen of ``width`` x ``height`` pixels."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1}
        self.send("Emulation.setDeviceMetricsOverride", **size, mobile=width < 600)

    def write(self, selector: str, text: str) -> None:
        """Type ``text`` into the field at ``selector``, in place of what is there."""
        self.evaluate(f"document.querySelector({json.dumps(selector)}).select()")
        self.send("Input.insertText", text=text)

    def click(self, selector: str) -> None:
        """Press the mouse on the middle of the element at ``selector``."""
        x, y = self.evaluate(
            f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])"
            f"(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def close(self) -> None:
        self.process.terminate()
        self.process.communicate()
        self.timer.cancel()
