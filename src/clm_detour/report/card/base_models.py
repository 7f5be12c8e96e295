"""Facts about base models of the hub, as their pages state them, and the texts to cite them with."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

METHOD, LIBRARY = "touchent2026clmdetour", "clmdetour"


@dataclass(frozen=True)
class BaseModel:
    """License, language and key of the citation of a base model, each None where it is not known."""

    license: str | None = None
    language: str | None = None
    citation: str | None = None


MODERNBERT = BaseModel("apache-2.0", "en", "warner2024modernbert")
BIOCLINICAL = BaseModel("mit", "en", "sounack2025bioclinical")
BASE_MODELS = {
    "answerdotai/ModernBERT-base": MODERNBERT,
    "answerdotai/ModernBERT-large": MODERNBERT,
    "thomas-sounack/BioClinical-ModernBERT-base": BIOCLINICAL,
    "thomas-sounack/BioClinical-ModernBERT-large": BIOCLINICAL,
    "almanach/moderncamembert-base": BaseModel("mit", "fr"),
    "almanach/moderncamembert-large": BaseModel(language="fr"),
}


def citations(base: str | None) -> str:
    """Return BibTeX entries for the method, this library and, where it is known, the base model."""
    text = Path(__file__).with_name("citations.bib").read_text(encoding="utf-8")
    entries = {entry[2]: entry[1] for entry in re.finditer(r"(@\w+\{(\w+),.*?\n\})", text, re.DOTALL)}
    keys = [METHOD, LIBRARY, BASE_MODELS.get(base or "", BaseModel()).citation]
    return "\n\n".join(entries[key] for key in keys if key)
