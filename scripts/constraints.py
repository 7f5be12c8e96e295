"""Write constraints/NAME.txt: the releases that pip chooses for this Python, which are not installed.

python scripts/constraints.py EXTRA NAME
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Write the packages that pip would install with an extra."""
    extra, name = sys.argv[1:]
    command = [
        sys.executable,
        *["-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--report", "-"],
    ]
    command.append(f"{ROOT}[{extra},test,dev,docs]")
    report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    names = {item["metadata"]["name"].lower(): item["metadata"]["version"] for item in report["install"]}
    names.pop("clm-detour")
    target = ROOT / "constraints" / f"{name}.txt"
    target.parent.mkdir(exist_ok=True)
    target.write_text("".join(f"{name}=={version}\n" for name, version in sorted(names.items())))
    print(f"Wrote {target} ({len(names)} packages)")


if __name__ == "__main__":
    main()
