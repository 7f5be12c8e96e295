"""Record what `clm-detour run` shows on a terminal of 80 columns as docs/images/terminal.svg.

    python scripts/record_terminal.py                       # configs/quickstart.yaml +debug
    python scripts/record_terminal.py configs/mini.yaml     # any other words of `clm-detour run`

The command runs on a pseudo-terminal in an empty folder, and pyte, a terminal emulator, interprets all that
it prints. The picture is the last screen. Only rates and times differ between two recordings.
"""

from __future__ import annotations

import fcntl
import io
import itertools
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

import pyte
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = ROOT / "docs" / "images" / "terminal.svg"
COLUMNS, ROWS = 80, 44
DEFAULT = ["configs/quickstart.yaml", "+debug"]


def run_on_terminal(words: list[str], folder: Path) -> pyte.Screen:
    """Run `clm-detour run` on a pseudo-terminal, and return the screen at its end.

    Args:
        words: Arguments of the command.
        folder: Working directory.
    """
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.ByteStream(screen)
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    own = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    command = [sys.executable, "-m", "clm_detour", "run", *words]
    environment = {**own, "TERM": "xterm-256color"}
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdin=side, stdout=side, stderr=side, start_new_session=True
    )
    os.close(side)
    while True:
        try:
            data = os.read(main, 65536)
        except OSError:  # Linux reports the end of a terminal as an error
            break
        if not data:
            break
        stream.feed(data)
    if process.wait():
        sys.exit("\n".join(line.rstrip() for line in screen.display))
    return screen


def picture(screen: pyte.Screen, title: str) -> str:
    """Return the screen as an SVG that needs no font of another site."""
    console = Console(
        record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    used = max(number for number, line in enumerate(screen.display) if line.strip()) + 1
    for row in range(used):
        characters = [screen.buffer[row][column] for column in range(COLUMNS)]
        line = Text()
        for style, group in itertools.groupby(characters, style_of):
            line.append("".join(character.data for character in group), style)
        line.rstrip()
        console.print(line, soft_wrap=True, highlight=False)
    svg = console.export_svg(title=title, unique_id="terminal")
    svg = re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    return svg.replace("&#160;", "\u00a0")


def style_of(character: pyte.screens.Char) -> str:
    """Return the style of a character in the words of rich."""
    color = "yellow" if character.fg == "brown" else character.fg
    color = f"#{color}" if re.fullmatch("[0-9a-f]{6}", color) else color
    return f"bold {color}" if character.bold else color


def main() -> None:
    """Record the command, and write the picture."""
    words = sys.argv[1:] or DEFAULT
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "configs").symlink_to(ROOT / "configs")
        screen = run_on_terminal(words, Path(folder))
    OUTPUT.write_text(picture(screen, f"clm-detour run {' '.join(words)}"), encoding="utf-8")
    print(f"Wrote {OUTPUT}")


if __name__ == "__main__":
    main()
