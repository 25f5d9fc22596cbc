"""The program in a real terminal: the question before money is spent, the live panel, and the screen after it."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import ioctl
from pathlib import Path

import pytest

from servers import ChatServer, config_reply

pytestmark = pytest.mark.long

CODES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\r")


class Terminal:
    """A program whose three streams are a terminal of 100 columns and 30 lines."""

    def __init__(self, *command: str, env: dict[str, str]) -> None:
        self._ours, theirs = pty.openpty()
        ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        self.raw = ""
        self.program = subprocess.Popen(
            [sys.executable, "-m", "latentscore_data", *command],
            stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, preexec_fn=_take_terminal,
            env={**os.environ, "TERM": "xterm-256color", **env},
        )  # fmt: skip
        os.close(theirs)

    @property
    def text(self) -> str:
        return CODES.sub("", self.raw)

    def until(self, wanted: str | None, seconds: float = 60.0) -> None:
        """Read what is shown until the text is there; with None, until the program has ended."""
        end = time.monotonic() + seconds
        while wanted is None or wanted not in self.text:
            assert time.monotonic() < end, self.text
            if not select.select([self._ours], [], [], 0.2)[0]:
                continue
            try:
                some = os.read(self._ours, 65536)
            except OSError:  # Linux says so when the other end is closed
                some = b""
            if not some:
                assert wanted is None, self.text
                return
            self.raw += some.decode("utf-8", "replace")

    def type(self, keys: str) -> None:
        """Press keys as a person would: not within the instant between a question's last letter and the wait for an answer,
        where Python notes a Ctrl-C but goes on waiting until the next key."""
        time.sleep(0.5)
        os.write(self._ours, keys.encode())

    def exit_code(self) -> int:
        self.until(None)
        return self.program.wait(timeout=30)

    def close(self) -> None:
        if self.program.poll() is None:
            os.killpg(self.program.pid, signal.SIGKILL)
            self.program.wait()
        os.close(self._ours)


def _take_terminal() -> None:
    # Ctrl-C only reaches those whose own terminal it is typed into.
    ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def asked_to_pay(server: ChatServer, root: Path) -> Iterator[Terminal]:
    """``configs`` with a hosted model of a known price, at its question; the provider lives on this machine."""
    env = {"OPENAI_API_KEY": "sk-loopback", "OPENAI_BASE_URL": server.url, "CI": ""}
    terminal = Terminal(
        "configs", "grey rain", "--n", "2", "--model", "openai/gpt-4o-mini", "--scorer", "acoustic",
        "--seconds", "0.5", "--root", str(root), env=env,
    )  # fmt: skip
    try:
        terminal.until("Continue? [y/N]: ")
        yield terminal
    finally:
        terminal.close()


def test_yes_spends_and_the_summary_of_the_cost_was_right(root: Path) -> None:
    with ChatServer(config_reply()) as server, asked_to_pay(server, root) as terminal:
        assert re.search(
            r"openai/gpt-4o-mini: 2 calls, [\d,]+ tokens in, about [\d,]+ out, about \$0\.\d+", terminal.text
        )
        assert server.received == [], "nothing is asked before the answer"
        terminal.type("y\n")
        assert terminal.exit_code() == 0, terminal.text
        assert len(server.received) == 2
        assert "acoustic" in terminal.text


@pytest.mark.parametrize(
    ("keys", "code", "said"),
    [
        ("n\n", 4, "nothing was spent"),
        ("\n", 4, "nothing was spent"),
        ("\x03", 130, "interrupted"),
        ("\x04", 130, "interrupted"),
    ],
)
def test_no_or_nothing_or_ctrl_c_spends_nothing(root: Path, keys: str, code: int, said: str) -> None:
    with ChatServer(config_reply()) as server, asked_to_pay(server, root) as terminal:
        terminal.type(keys)
        assert terminal.exit_code() == code, terminal.text
        assert said in terminal.text
        assert "Traceback" not in terminal.text
        assert server.received == []


def test_the_panel_counts_and_leaves_nothing_behind(root: Path) -> None:
    terminal = Terminal(
        "configs", "--n", "2", "--scorer", "acoustic", "--seconds", "0.5", "--root", str(root), env={"CI": ""}
    )
    try:
        assert terminal.exit_code() == 0, terminal.text
    finally:
        terminal.close()
    assert "bundled sample vibes" in " ".join(terminal.text.split())
    assert all(len(line) < 100 for line in terminal.text.splitlines() if line.startswith("configs: "))
    panels = [line for line in terminal.text.splitlines() if "in flight" in line]
    assert any(re.search(r"│ \d/8 · \d in flight", line) for line in panels), "how far it is, in words"
    assert terminal.raw.rindex("\x1b[?25h") > terminal.raw.rindex("\x1b[?25l"), "the cursor is there again"
    assert "winner scores" in terminal.text[terminal.text.rindex("in flight") :]
    assert all(len(line) <= 98 for line in panels), "the ^C of a terminal fits behind it"


def test_a_dumb_terminal_gets_plain_lines(root: Path) -> None:
    env = {"CI": "", "TERM": "dumb", "NO_COLOR": "1"}
    terminal = Terminal("configs", "--n", "1", "--only", "generate", "--root", str(root), env=env)
    try:
        assert terminal.exit_code() == 0, terminal.text
        assert "\x1b" not in terminal.raw
    finally:
        terminal.close()
