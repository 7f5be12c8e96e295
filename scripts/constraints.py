"""Write constraints/VERSION.txt: the releases that pip chooses for this Python, which are not installed."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Write the packages that pip would install."""
    command = [
        sys.executable,
        *["-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--report", "-"],
    ]
    command.append(f"{ROOT}[train,test,dev,docs]")
    report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    names = {item["metadata"]["name"].lower(): item["metadata"]["version"] for item in report["install"]}
    names.pop("clm-detour")
    target = ROOT / "constraints" / f"{sys.version_info.major}.{sys.version_info.minor}.txt"
    target.parent.mkdir(exist_ok=True)
    target.write_text("".join(f"{name}=={version}\n" for name, version in sorted(names.items())))
    print(f"Wrote {target} ({len(names)} packages)")


if __name__ == "__main__":
    main()
