"""Take a picture of the first screen of a run's page with headless Chromium.

python scripts/screenshot.py RUN OUT.png
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTH, HEIGHT = 1280, 570  # pixels; the page shows its result above this height
WAIT = 5000  # milliseconds of the page's own time, in which it draws its charts


def screenshot(page: Path, out: Path, height: int) -> None:
    """Write the first `height` pixels of an HTML page as PNG.

    Raises:
        SystemExit: If there is no browser, or no page.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise SystemExit(f"No browser was found; install one of {', '.join(BROWSERS)}.")
    if not page.is_file():
        raise SystemExit(f"{page} does not exist; write it with `clm-detour report RUN`.")
    with tempfile.TemporaryDirectory() as profile:
        command = [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            f"--user-data-dir={profile}", f"--window-size={WIDTH},{height}", f"--virtual-time-budget={WAIT}",
            f"--screenshot={out.resolve()}", page.resolve().as_uri(),
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, timeout=300)


def main() -> None:
    """Read the arguments and take the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("out", type=Path, help="PNG file")
    parser.add_argument("--height", type=int, default=HEIGHT, help="pixels")
    arguments = parser.parse_args()
    screenshot(arguments.run / "report.html", arguments.out, arguments.height)


if __name__ == "__main__":
    main()
