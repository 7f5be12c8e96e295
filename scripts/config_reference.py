"""Write docs/config.md from the dataclasses of config/schema.py and their comments."""

import inspect
import re
from pathlib import Path

from clm_detour.config import schema

TARGET = Path(__file__).parents[1] / "docs" / "config.md"
FIELD = re.compile(r"    (?P<key>\w+): (?P<kind>[^=#]+?)(?: = (?P<default>.+?))?(?:  # (?P<comment>.+))?$")
PLACES = {
    "Config": "top level", "Data": "data", "Sample": "data.sample", "Source": "data.sources.NAME",
    "Tokenizer": "tokenizer", "TokenizerTraining": "tokenizer.train", "Model": "model", "Optimizer": "optimizer",
    "Train": "train", "Phase": "phases.NAME", "Schedule": "phases.NAME.schedule",
    "BatchWarmup": "phases.NAME.batch_warmup", "Evaluate": "evaluate", "Analysis": "analysis",
    "FineTuning": "evaluate.tasks", "Evaluation": "an evaluation (`clm-detour evaluate`)",
}  # fmt: skip
INTRO = """# Every key of a recipe

Made from `src/clm_detour/config/schema.py` by `python scripts/config_reference.py`. A file may open with `extends: other.yaml` (or a list);
`key.sub=value` on the command line wins over the files; `${other.key}` stands for another key's value. A value that starts with `~/` lies in the
home folder. Where a file extends another, a mixture keeps the shares of sources that it does not name itself.
"""


def default_of(text: str | None) -> str:
    """What the reader sees for a field's default."""
    if text is None or text == "MISSING":
        return "required"
    return "" if text.startswith("field(") else f"`{'null' if text == 'None' else text.strip(chr(34))}`"


def section(name: str, place: str) -> str:
    """One dataclass as a table."""
    lines = [
        f"## {place}",
        "",
        inspect.getdoc(getattr(schema, name)) or "",
        "",
        "| key | type | default | |",
        "|---|---|---|---|",
    ]
    for line in inspect.getsource(getattr(schema, name)).splitlines():
        match = FIELD.fullmatch(line)
        if match:
            kind = match["kind"].replace(" | None", " or null").replace("|", "or")
            lines.append(
                f"| `{match['key']}` | {kind} | {default_of(match['default'])} | {match['comment'] or ''} |"
            )
    return "\n".join(lines)


def reference() -> str:
    """The whole page."""
    return "\n\n".join([INTRO.rstrip(), *(section(name, place) for name, place in PLACES.items())]) + "\n"


if __name__ == "__main__":
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(reference(), encoding="utf-8")
