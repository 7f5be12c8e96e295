"""The style sheet and the script that make the charts of a page interactive, without any network.

`charts.js` embeds each element `.chart` when it comes into view, by Vega-Embed, whose code is part of the
script. Buttons with the attribute `data-arm` show and hide an arm in all charts.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import vl_convert
from markupsafe import Markup

from clm_detour.figures.theme import variables

HERE = Path(__file__).parent


@cache
def bundle() -> Markup:
    """Return the script as an element of HTML (0.9 MB), which stands once at the end of a page."""
    snippet = (HERE / "charts.js").read_text(encoding="utf-8")
    code = vl_convert.javascript_bundle(snippet)
    # Inside strings and regular expressions the backslash changes nothing; elsewhere the texts do not occur.
    safe = re.sub(r"<(?=/script|!--|script)", r"\\x3c", code, flags=re.IGNORECASE)
    return Markup('<script type="module">\n{}\n</script>').format(Markup(safe))


def style() -> Markup:
    """Return the style sheet: the colors of arms and charts as variables, and the rules of `.chart`."""
    return Markup(variables() + (HERE / "charts.css").read_text(encoding="utf-8"))
