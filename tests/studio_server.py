"""The studio in a process of its own on a free loopback port, started with the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from browsing import FLAGS, chromium
from conftest import SRC


@dataclass
class StudioProcess:
    """A running studio: its address without the token, the token, the process."""

    base: str
    token: str
    process: subprocess.Popen[str]

    @property
    def page(self) -> str:
        return f"{self.base}/#token={self.token}"

    def ask(
        self, path: str, data: Any = None, headers: Mapping[str, str] | None = None, *, token: str | None = None
    ) -> tuple[int, bytes, Mapping[str, str]]:
        """(status, body, headers) of one request; with ``data`` a POST of JSON."""
        body = None if data is None else json.dumps(data).encode()
        own = {"Authorization": f"Bearer {self.token if token is None else token}"}
        if body is not None:
            own["Content-Type"] = "application/json"
        request = urllib.request.Request(self.base + path, body, {**own, **(headers or {})})
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, answer.read(), answer.headers
        except urllib.error.HTTPError as error:
            return error.code, error.read(), error.headers

    def json(self, path: str, data: Any = None) -> Any:
        """The JSON of a request that succeeds."""
        status, body, _ = self.ask(path, data)
        assert status == 200, body
        return json.loads(body)


@contextmanager
def run_studio(root: Path, *options: str) -> Iterator[StudioProcess]:
    """A studio over this data root; it must end by itself on SIGINT."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "latentscore_data",
            "studio",
            "--no-open",
            "--json",
            "--port",
            "0",
            "--root",
            str(root),
            *options,
        ],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SRC), "HF_HUB_OFFLINE": "1"},
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        while line.strip() and not line.rstrip().endswith("}"):
            line += process.stdout.readline()
        base, _, token = json.loads(line)["address"].partition("/#token=")
        yield StudioProcess(base, token, process)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


@contextmanager
def open_browser() -> Iterator[Any]:
    """Chromium, for as many pages as a test wants."""
    executable = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, headless=True, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def open_studio(browser: Any, studio: StudioProcess, **options: Any) -> Iterator[Any]:
    """A Playwright page on the studio that has seen nothing before, with ``page.errors``."""
    context = browser.new_context(viewport=options.pop("viewport", {"width": 1280, "height": 900}), **options)
    try:
        page: Any = context.new_page()
        visit(page, studio.page)
        yield page
    finally:
        context.close()


def visit(page: Any, address: str) -> None:
    """Open an address in the page and wait for it; its errors are gathered in ``page.errors``."""
    page.set_default_timeout(60_000)
    page.errors = []
    page.on("console", lambda message: page.errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.goto(address)
    page.wait_for_selector("html[data-ready]")
