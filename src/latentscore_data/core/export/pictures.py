"""Plots as SVG text for cards and reports, without a plotting library; equal data give equal bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT, MARGIN = 640, 180, 44
BINS = 32
COLORS = ("#9AA9B8", "#C8553D")


def histograms(title: str, series: Mapping[str, Sequence[float]]) -> str:
    """Return an SVG of histograms of up to two series: the share of each one's values per bin, on one scale."""
    values = [value for numbers in series.values() for value in numbers]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if low == high:
        low, high = low - 0.5, high + 0.5
    shares = {name: _shares(numbers, low, high) for name, numbers in series.items()}
    top = max((share for bars in shares.values() for share in bars), default=0) or 1
    plot_width, plot_height = WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN
    bar = plot_width / BINS
    parts = _frame(title)
    for bars, color in zip(shares.values(), COLORS, strict=False):
        for i, share in enumerate(bars):
            if share:
                height = share / top * plot_height
                parts.append(
                    f'<rect x="{MARGIN + i * bar:.1f}" y="{HEIGHT - MARGIN - height:.1f}" width="{bar - 1:.1f}" '
                    f'height="{height:.1f}" fill="{color}" fill-opacity="0.65"/>'
                )
    for i, (name, color) in enumerate(zip(shares, COLORS, strict=False)):
        x = MARGIN + 200 * i
        parts.append(f'<rect x="{x}" y="{HEIGHT - 16}" width="10" height="10" fill="{color}"/>')
        parts.append(f'<text x="{x + 16}" y="{HEIGHT - 7}">{escape(name)} ({len(series[name])})</text>')
    axis = HEIGHT - MARGIN
    parts.append(f'<line x1="{MARGIN}" y1="{axis}" x2="{WIDTH - MARGIN}" y2="{axis}" stroke="#333"/>')
    for at, anchor in ((low, "start"), ((low + high) / 2, "middle"), (high, "end")):
        x = MARGIN + (at - low) / (high - low) * plot_width
        parts.append(f'<text x="{x:.1f}" y="{axis + 15}" text-anchor="{anchor}">{at:.3g}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def panels(title: str, series: Mapping[str, Sequence[float | None]]) -> str:
    """Return an SVG of line plots side by side, each on its own scale, over the indices 0, 1, 2, ...; None is a gap."""
    width = (WIDTH - MARGIN) / max(1, len(series))
    parts = _frame(title)
    for number, (name, values) in enumerate(series.items()):
        known = [(at, value) for at, value in enumerate(values) if value is not None]
        left, span = MARGIN + number * width, width - MARGIN
        low, high = (min(value for _, value in known), max(value for _, value in known)) if known else (0.0, 1.0)
        points = [
            (
                left + span * at / max(1, len(values) - 1),
                HEIGHT - MARGIN - (HEIGHT - 3 * MARGIN) * ((value - low) / (high - low) if high > low else 0.5),
                value,
            )
            for at, value in known
        ]
        parts.append(f'<text x="{left:.1f}" y="{MARGIN}">{escape(name)}</text>')
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{COLORS[1]}" stroke-width="2"/>')
        for (at, _), (x, y, value) in zip(known, points, strict=True):
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{COLORS[1]}"/>')
            parts.append(f'<text x="{x:.1f}" y="{y - 8:.1f}" text-anchor="middle">{value:.3g}</text>')
            parts.append(f'<text x="{x:.1f}" y="{HEIGHT - MARGIN / 2}" text-anchor="middle">{at}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _frame(title: str) -> list[str]:
    """Return the first lines of an SVG: its size, its title and a white background."""
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12" fill="#333">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{MARGIN}" y="20" font-size="14">{escape(title)}</text>',
    ]


def _shares(numbers: Sequence[float], low: float, high: float) -> list[float]:
    counts = [0] * BINS
    for number in numbers:
        counts[min(int((number - low) / (high - low) * BINS), BINS - 1)] += 1
    return [count / len(numbers) for count in counts] if numbers else []
