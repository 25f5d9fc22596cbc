"""Debian's Chromium, headless and offline, for tests that look at pages."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--autoplay-policy=no-user-gesture-required",
)  # fmt: skip


def chromium() -> str:
    """The browser's path; without one the test is skipped, or fails where CI promised one."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail("there is no Chromium: apt-get install chromium")
        pytest.skip("there is no Chromium (apt-get install chromium)")
    return found


PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}

TOO_SMALL = """[...document.querySelectorAll('button, select, textarea, input, summary')]
  .filter((node) => node.checkVisibility({ visibilityProperty: true }) && !node.closest('.askline'))
  .map((node) => [node.outerHTML.slice(0, 120), node.getBoundingClientRect()])
  .filter(([, box]) => box.width && (box.width < 44 || box.height < 44)).map(([html]) => html)"""
"""The controls of a page that are smaller than 44 by 44 px, which fingers miss."""


@contextmanager
def open_page(path: Path, **options: Any) -> Iterator[Any]:
    """A Playwright page that shows the file, with ``page.errors``: what the console and the scripts complained about."""
    executable = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        context = playwright.chromium.launch_persistent_context(
            profile,
            executable_path=executable,
            headless=True,
            args=list(FLAGS),
            viewport=options.pop("viewport", {"width": 1280, "height": 900}),
            color_scheme=options.pop("color_scheme", "light"),
            **options,
        )
        try:
            page: Any = context.new_page()
            page.set_default_timeout(60_000)
            page.errors = []
            page.on("console", lambda message: page.errors.append(message.text) if message.type == "error" else None)
            page.on("pageerror", lambda error: page.errors.append(str(error)))
            page.goto(path.as_uri())
            page.wait_for_selector("html[data-ready]")
            yield page
        finally:
            context.close()


def until(page: Any, expression: str, timeout_seconds: float = 30.0) -> None:
    """Wait for a JavaScript expression to hold. (Playwright's own way of waiting needs eval, which the page forbids.)"""
    end = time.monotonic() + timeout_seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"never became true: {expression}"
        page.wait_for_timeout(50)
