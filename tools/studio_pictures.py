"""Make the pictures of the studio in README and docs: desktop and phone, light and dark.

    python tools/studio_pictures.py [--out docs/studio] [--root DATA]

Without ``--root`` a small workspace of the bundled passages is made first. Needs Chromium and the dev extra.
"""

from __future__ import annotations

import argparse
import base64
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPO / "src"), str(REPO / "tests")]

from browsing import until  # noqa: E402
from latentscore_data import Workspace  # noqa: E402
from latentscore_data.core.base.marks import Mark, add_mark, add_preference  # noqa: E402
from latentscore_data.studio.preferences import preference_of  # noqa: E402
from studio_server import StudioProcess, open_browser, open_studio, run_studio  # noqa: E402

VIBE = "slow rain on a tin roof, dark and far away"
DESKTOP, PHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 844}


def make_workspace(root: Path) -> None:
    """Rows with four candidates, marks, answers to pairs, a benchmark."""
    work = Workspace(root, scoring={"seconds": 6})
    work.download("builtin", sample_size=8)
    work.vibes()
    work.configs(n=4, limit=24)
    rows = [row for row in work.rows() if row.best_index is not None]
    for at, row in enumerate(rows):
        if at % 5 == 0:
            add_mark(root, row.row_id, Mark("good" if at % 2 else "bad", "too busy" if at == 10 else ""))
        best, other = row.best_index or 0, next(i for i in range(4) if i != row.best_index)
        add_preference(root, preference_of(row, *((other, best) if at % 3 == 0 else (best, other))))
    work.bench("dataset:config_payload", "baseline:random", split="SFT-Train", limit=8)


@contextmanager
def shown(browser: Any, studio: StudioProcess, view: str, **options: Any) -> Iterator[Any]:
    """The page with a piece playing, or with a row open."""
    with open_studio(browser, studio, **options) as page:
        if view == "play":
            page.fill("#vibe", VIBE)
            page.press("#vibe", "Enter")
            until(page, "document.querySelectorAll('.candidate').length === 4", 120)
            page.wait_for_selector("html.playing")
            page.wait_for_timeout(5000)
        else:
            page.get_by_role("button", name="Data", exact=True).click()
            page.wait_for_selector(".cand" if options["viewport"] is DESKTOP else ".rowline")
            page.wait_for_timeout(1500)
        page.evaluate("document.activeElement.blur()")
        yield page
        assert page.errors == [], page.errors


def side_by_side(browser: Any, pictures: list[bytes], out: Path) -> None:
    """Pictures of phones next to each other on white."""
    page = browser.new_page(viewport={"width": 2 * PHONE["width"] + 60, "height": PHONE["height"] + 40})
    images = "".join(
        f'<img style="width:{PHONE["width"]}px;border-radius:26px;border:1px solid #ccd" '
        f'src="data:image/png;base64,{base64.b64encode(one).decode()}">'
        for one in pictures
    )
    page.set_content(f'<body style="margin:20px;display:flex;gap:18px;background:#fff">{images}</body>')
    page.screenshot(path=str(out))
    page.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=REPO / "docs" / "studio")
    parser.add_argument("--root", type=Path)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        root = options.root or Path(folder) / "data"
        if options.root is None:
            make_workspace(root)
        with run_studio(root) as studio, open_browser() as browser:
            for name, view, scheme in (("play-desktop-light", "play", "light"), ("play-desktop-dark", "play", "dark"), ("data-desktop-light", "data", "light")):  # fmt: skip
                with shown(browser, studio, view, viewport=DESKTOP, color_scheme=scheme) as page:
                    page.screenshot(path=str(options.out / f"{name}.png"))
            phones = []
            for scheme in ("light", "dark"):
                with shown(
                    browser, studio, "play", viewport=PHONE, color_scheme=scheme, is_mobile=True, has_touch=True
                ) as page:
                    phones.append(page.screenshot())
            side_by_side(browser, phones, options.out / "phone.png")


if __name__ == "__main__":
    main()
