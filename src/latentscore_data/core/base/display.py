"""Program output: a live panel in a terminal, plain lines elsewhere, one JSON document with ``--json``.

Results go to stdout, everything else to stderr. Text from corpora, models or files is passed through :func:`clean`
first.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from latentscore_data.core.base.names import json_bytes, printable
from latentscore_data.core.base.secrets import NAMED
from latentscore_data.core.base.summary import Progress, Summary

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

log = logging.getLogger(__name__)

PLAIN_LINE_SECONDS = 10.0


@dataclass
class Output:
    """The output mode of this run, set once by the command line."""

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    root: str = ""
    command: str = ""


OUTPUT = Output()


_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[PX^_][^\x1b]*(?:\x1b\\)?|\x1b[@-Z\\-_]?"
)
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)


def clean(text: object) -> str:
    """Return untrusted text for a terminal: valid Unicode without escape sequences, control or direction characters and tabs."""
    return _CONTROLS.sub("", _ESCAPES.sub("", printable(text))).replace("\t", " ")


def shorten(text: object, width: int) -> str:
    """One clean line of at most ``width`` characters."""
    line = " ".join(clean(text).split())
    return line if len(line) <= width else line[: max(width - 1, 0)] + "…"


_SECRET_VARIABLE = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD)(_ID)?$", re.IGNORECASE)


def redact(text: str) -> str:
    """Return the text without the values of keys in the environment: variables named like keys, and those used as keys in
    this run."""
    for name, value in os.environ.items():
        if (_SECRET_VARIABLE.search(name) or name in NAMED) and len(value) >= 6:
            text = text.replace(value, f"[{name}]")
    return re.sub(r"(Bearer\s+)[A-Za-z0-9._~+/=-]{8,}", r"\1[redacted]", text)


class RedactingFormatter(logging.Formatter):
    """Formats log records, tracebacks included, without keys and without control sequences."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(clean(super().format(record)))


def console(stderr: bool = False) -> Console:
    """Return a console on stdout, or on stderr if requested or if stdout is reserved for the JSON document."""
    from rich.console import Console

    # No markup: brackets in a path or a setting are text, not a style or a link.
    return Console(stderr=stderr or OUTPUT.json, highlight=False, soft_wrap=False, markup=False, emoji=False)


def say(message: str) -> None:
    """Print a cleaned line on stderr and write it to the log; not printed with --quiet."""
    message = clean(message)
    log.info("%s", message)
    if not OUTPUT.quiet:
        print(wrapped(message) if sys.stderr.isatty() else message, file=sys.stderr)  # noqa: T201


class SlowStep:
    """Prints progress and remaining time every ten seconds, for steps without a progress line.

    ``total`` is the number of rows; None if it is unknown until they have been read.
    """

    EVERY_SECONDS = 10.0

    def __init__(self, name: str, total: int | None = None) -> None:
        self.name, self.total = name, total
        self._started = self._said = time.monotonic()

    def at(self, done: int) -> None:
        """Report that ``done`` rows are finished; call it often."""
        now = time.monotonic()
        if now - self._said < self.EVERY_SECONDS:
            return
        self._said = now
        if self.total is None:
            say(f"{self.name}: {done:,} rows")
            return
        left = (now - self._started) * (self.total - done) / max(done, 1)
        say(f"{self.name}: {done:,} of {self.total:,} rows, about {duration(left)} left")


def wrapped(message: str) -> str:
    """Return the message wrapped between words for the terminal's width; paths and addresses are not broken."""
    import shutil
    import textwrap

    width = max(shutil.get_terminal_size().columns - 1, 20)
    lines = (textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False) for line in message.split("\n"))
    return "\n".join(lines)


def interactive() -> bool:
    """Return True if a person can answer questions: stdin and stderr are terminals, and CI is not set."""
    return sys.stdin.isatty() and sys.stderr.isatty() and os.environ.get("CI", "").lower() not in ("1", "true")


def can_be_live() -> bool:
    """True when a panel may redraw itself on stderr."""
    return (
        sys.stderr.isatty()
        and os.environ.get("CI", "").lower() not in ("1", "true")
        and os.environ.get("TERM", "") not in ("", "dumb")
        and not OUTPUT.quiet
    )


def progress() -> Progress:
    """Return the progress display for this environment."""
    if OUTPUT.quiet:
        return Progress()
    return LivePanel() if can_be_live() else PlainLines()


def print_json(value: Any) -> None:
    """Print the JSON document on stdout."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS
    sys.stdout.flush()
    sys.stdout.buffer.write(json_bytes(value, options, str))
    sys.stdout.buffer.flush()


def styled(text: object, style: str = "") -> Text:
    """Clean text in one style."""
    from rich.text import Text

    return Text(clean(text), style)


def print_rows(
    heads: Sequence[str], rows: Iterable[Sequence[Any]], title: str | Text | None = None, *, whole: int = 0
) -> None:
    """Rows on stdout below their heads; the first ``whole`` columns are never broken. A cell is made clean, unless it is
    something that rich draws."""
    from rich.table import Table

    table = Table(*heads, title=title, title_justify="left", show_header=any(heads), box=None)
    for column in table.columns[:whole]:
        column.no_wrap = True
    for row in rows:
        table.add_row(*(cell if hasattr(cell, "__rich_console__") else styled(cell) for cell in row))
    print_table(table)


def print_facts(title: str | Text, facts: Iterable[tuple[str, object]]) -> None:
    """Names and their values on stdout."""
    print_rows(("", ""), ((styled(name, "dim"), value) for name, value in facts), title, whole=1)


def print_table(table: Table) -> None:
    """Print a table on stdout. If a column is too narrow for a word, such as a path, cells are printed below their rows, so
    that no word is cut or broken and users can copy it."""
    from rich.measure import Measurement

    out = console()
    if Measurement.get(out, out.options.update(width=1000), table).minimum <= out.width:
        out.print(table)
        return
    for line in _stacked(table, out.width):
        # A word that is longer than the terminal's width is wrapped by the terminal.
        out.print(line, soft_wrap=True)


def _stacked(table: Table, columns_wide: int) -> Iterator[Text]:
    """Yield the lines of a table. Cells of the column with the longest word (except the first column) are at the end of the
    line if they fit, else below. A row that does not fit even so is a list of its cells, each after the name of its
    column."""
    from textwrap import wrap

    from rich.text import Text

    def as_text(cell: Any) -> Text:
        return cell.copy() if isinstance(cell, Text) else Text(str(cell))

    heads = [as_text(column.header) for column in table.columns] if table.show_header else []
    columns = [[as_text(cell) for cell in column.cells] for column in table.columns]
    longest = [max((len(word) for cell in cells for word in cell.plain.split()), default=0) for cells in columns]
    moved = max(range(1, len(columns)), key=longest.__getitem__) if len(columns) > 1 else 0
    kept = [at for at in range(len(columns)) if at != moved]
    widths = [max((cell.cell_len for cell in [*columns[at], *heads[at : at + 1]]), default=0) for at in kept]
    rows = list(map(list, zip(*columns, strict=True)))
    if heads and sum(widths) + 2 * (len(widths) - 1) > columns_wide:
        name = max(head.cell_len for head in heads)
        for row in rows:
            for head, cell in zip(heads, row, strict=True):
                if cell.plain:
                    yield Text.assemble((head.plain.ljust(name), "bold"), "  ", cell)
            yield Text()
        return
    for row in ([heads] if heads else []) + rows:
        line = Text()
        for at, width in zip(kept, widths, strict=True):
            row[at].pad_right(width - row[at].cell_len)
            line.append_text(row[at]).append("  ")
        line.rstrip()
        if row is heads:
            line.stylize("bold")
        if row is not heads and line.cell_len + 2 + row[moved].cell_len <= columns_wide:
            yield line.append("  ").append_text(row[moved]) if row[moved].plain else line
            continue
        yield line
        if row is not heads:
            width = max(columns_wide - 4, 1)
            for part in wrap(row[moved].plain, width, break_long_words=False, break_on_hyphens=False):
                yield Text(f"    {part}", style=row[moved].style)


def print_summary(summary: Summary) -> None:
    """Print a stage's result: a small table, its histograms, and the next step; or its JSON."""
    if OUTPUT.json:
        print_json(summary.to_dict())
        return
    out = console()
    if summary.fresh and not summary.exit_code:
        done = {0: "fresh", 1: f"the {summary.unit} is done already"}.get(
            summary.skipped, f"all {summary.skipped:,} {summary.unit}s are done already"
        )
        out.print(styled(summary.stage, "bold"), f": {done}, nothing to do", sep="")
    else:
        print_facts(styled(summary.stage, "bold"), _facts(summary))
        for path in summary.outputs:
            print_named("wrote", path)
        print_winner_scores(summary.details)
    print_next(summary.next_step)


def print_named(name: str, value: object) -> None:
    """A value behind its name; never broken, for a path is copied from here: the terminal may fold it."""
    console().print(styled(name, "dim"), styled(value), sep="  ", soft_wrap=True)


def print_winner_scores(details: Mapping[str, Any]) -> None:
    """How the scores of a stage's winners lie, where there are some."""
    scores = details.get("winner_scores")
    if isinstance(scores, list) and len(scores) > 1:
        print_named("winner scores", histogram(scores))


def print_next(step: str) -> None:
    """Print the last line of a command, the next command or file to open; nothing for an empty step."""
    if step:
        console().print(styled("next:", "dim"), styled(step), soft_wrap=True)


def _facts(summary: Summary) -> Iterable[tuple[str, str]]:
    yield "done", str(summary.done)
    if summary.skipped:
        yield "already done", str(summary.skipped)
    if summary.pending:
        yield "in batches", f"{summary.pending:,} questions wait for their answers"
    if summary.failed:
        kinds = ", ".join(f"{count} {kind}" for kind, count in summary.failed.most_common())
        yield "failed", f"{sum(summary.failed.values())} ({kinds})"
    if summary.short:
        again = f" ({summary.unfinished} can be retried)" if summary.unfinished else ""
        yield "fewer than requested", f"{summary.short}{again}"
    if summary.calls or summary.cached:
        yield "model calls", f"{summary.calls} ({summary.cached} from the cache)"
    if summary.tokens_in or summary.tokens_out:
        yield "tokens", f"{summary.tokens_in:,} in, {summary.tokens_out:,} out"
    if summary.calls or summary.saved_usd:
        yield "cost", money(summary.cost_usd) + (f", saved {money(summary.saved_usd)}" if summary.saved_usd else "")
    for name, value in summary.details.items():
        # Counts of zero are left out here; the JSON document has them.
        if (
            isinstance(value, str | int | float)
            and not isinstance(value, bool)
            and (value != 0 or type(value) is float)
        ):
            # A benchmark's details are named by its sources' labels, which users type again, so they are not changed.
            label = name if ":" in name or summary.stage == "bench" else name.replace("_", " ")
            yield label, f"{value:.3f}" if isinstance(value, float) else str(value)
    yield "time", duration(summary.seconds)


def money(usd: float | None) -> str:
    """Return an amount in US dollars with as many digits as needed, or "unknown price"."""
    if usd is None:
        return "unknown price"
    return f"${usd:.2f}" if usd >= 1 or usd == 0 else f"${usd:.4f}"


def duration(seconds: float) -> str:
    """Return a readable duration: 3.2 s, 4 min 05 s, 2 h 10 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


_BARS = " ▁▂▃▄▅▆▇█"


def histogram(values: Sequence[float], bins: int = 20) -> str:
    """A row of bars between the smallest and the largest value."""
    low, high = min(values), max(values)
    if low == high:
        return f"{low:.3f} (all {len(values)})"
    counts = [0] * bins
    for value in values:
        counts[min(int((value - low) / (high - low) * bins), bins - 1)] += 1
    top = max(counts)
    bars = "".join(_BARS[-(-count * (len(_BARS) - 1) // top)] for count in counts)
    return f"{low:.3f} {bars} {high:.3f}"


def palette_blocks(palette: Mapping[str, Any]) -> RenderableType:
    """A palette as coloured blocks, the widest for the largest weight; hex codes where there are no colours."""
    widths = {"xs": 1, "sm": 2, "md": 3, "lg": 4, "xl": 5, "xxl": 6}
    if os.environ.get("NO_COLOR") or console().color_system is None:
        return styled(" ".join(color["hex"] for color in palette["colors"]))
    blocks = styled("")
    for color in palette["colors"]:
        blocks.append(" " * widths.get(str(color["weight"]), 3), style=f"on {clean(color['hex'])}")
    return blocks


def fields_in_lines(config: Mapping[str, Any], indent: int = 2) -> str:
    """``tempo slow  root c  ...`` in lines for this terminal; a field and its value stay together."""
    from textwrap import fill

    joined = "  ".join(f"{name}\0{str(value).lower()}" for name, value in config.items())
    return fill(joined, max(console().width - indent, 1), break_long_words=False, break_on_hyphens=False).replace(
        "\0", " "
    )


class PlainLines(Progress):
    """A line every ten seconds, for logs and CI."""

    _said = 0.0

    def update(self, summary: Summary, in_flight: int) -> None:
        now = time.monotonic()
        if now - max(self.started, self._said) >= PLAIN_LINE_SECONDS:
            self._said = now
            say(f"{summary.stage}: {one_line(summary, in_flight, self.total, now - self.started)}")


class LivePanel(Progress):
    """A panel that redraws itself while a stage works."""

    _live: Any = None
    _drawn = 0.0

    def start(self, stage: str, total: int | None) -> None:
        from rich.live import Live

        super().start(stage, total)
        self._live = Live(console=console(stderr=True), refresh_per_second=8, transient=True)
        self._live.start()

    def update(self, summary: Summary, in_flight: int) -> None:
        if self._live is not None and time.monotonic() - self._drawn > 0.12:
            self._drawn = time.monotonic()
            self._live.update(self._panel(summary, in_flight))

    def finish(self, summary: Summary) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _panel(self, summary: Summary, in_flight: int) -> RenderableType:
        from rich.panel import Panel
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        elapsed = time.monotonic() - self.started
        rows: list[RenderableType] = [styled(one_line(summary, in_flight, self.total, elapsed))]
        if self.total:
            finished = summary.done + summary.skipped + sum(summary.failed.values())
            rows.insert(0, ProgressBar(total=self.total, completed=finished))
        if summary.calls or summary.cached:
            spent = money(summary.cost_usd)
            line = (
                f"{summary.tokens_in:,} tokens in, {summary.tokens_out:,} out · {summary.cached} cached · spent {spent}"
            )
            if self.total and summary.cost_usd and summary.done:
                projected = summary.cost_usd * (self.total - summary.skipped) / summary.done
                line += f" · projected {money(projected)}"
            rows.append(styled(line, "dim"))
        if summary.failed:
            rows.append(styled(", ".join(f"{n} {kind}" for kind, n in summary.failed.most_common()), "red"))
        # In a grid, because a bar ends without a newline and the text after it would be cut off.
        lines = Table.grid(expand=True)
        for row in rows:
            lines.add_row(row)
        # Two columns are left free for the "^C" that a terminal prints, which would otherwise begin a line that is not
        # erased.
        return Panel(lines, title=summary.stage, title_align="left", width=min(console(stderr=True).width - 2, 100))


def one_line(summary: Summary, in_flight: int, total: int | None, elapsed: float) -> str:
    """Progress in one line: done of total, in flight, per minute, time left."""
    finished = summary.done + summary.skipped + sum(summary.failed.values())
    parts = [f"{finished}/{total}" if total else str(finished)]
    if summary.skipped:
        parts.append(f"{summary.skipped} already done")
    if summary.failed:
        parts.append(f"{sum(summary.failed.values())} failed")
    parts.append(f"{in_flight} in flight")
    if summary.done and elapsed > 0:
        per_second = summary.done / elapsed
        parts.append(f"{per_second * 60:.0f}/min")
        if total and total > finished:
            parts.append(f"{duration((total - finished) / per_second)} left")
    return " · ".join(parts)
