"""Pictures for cards, drawn as SVG: no plotting library, the same bytes every time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT, MARGIN = 640, 180, 44
BINS = 32
COLORS = ("#9AA9B8", "#C8553D")


def histograms(title: str, series: Mapping[str, Sequence[float]]) -> str:
    """Overlaid histograms of up to two series on one scale, each as the share of its own values, as an SVG document."""
    values = [value for numbers in series.values() for value in numbers]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if low == high:
        low, high = low - 0.5, high + 0.5
    shares = {name: _shares(numbers, low, high) for name, numbers in series.items()}
    top = max((share for bars in shares.values() for share in bars), default=0) or 1
    plot_width, plot_height = WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN
    bar = plot_width / BINS
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12" fill="#333">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{MARGIN}" y="20" font-size="14">{escape(title)}</text>',
    ]
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


def _shares(numbers: Sequence[float], low: float, high: float) -> list[float]:
    counts = [0] * BINS
    for number in numbers:
        counts[min(int((number - low) / (high - low) * BINS), BINS - 1)] += 1
    return [count / len(numbers) for count in counts] if numbers else []
