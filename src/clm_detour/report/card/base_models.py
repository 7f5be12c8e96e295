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
    "almanach/ModernBERT-bio-base": BaseModel(language="en"),
    "almanach/ModernBERT-bio-large": BaseModel("apache-2.0", "en"),
    "almanach/ModernCamemBERT-bio-base": BaseModel("apache-2.0", "fr"),
    "almanach/ModernCamemBERT-bio-large": BaseModel(language="fr"),
}
FORMER_IDS = {  # under which the models of the paper were first published
    "rntc/cpt-en-base": "almanach/ModernBERT-bio-base",
    "rntc/cpt-en-large": "almanach/ModernBERT-bio-large",
    "rntc/cpt-fr-base": "almanach/ModernCamemBERT-bio-base",
    "rntc/cpt-fr-large": "almanach/ModernCamemBERT-bio-large",
}


def base_model(id: str | None) -> BaseModel:
    """Return what is known of a base model by its id on the hub, new or former; nothing for another one."""
    return BASE_MODELS.get(FORMER_IDS.get(id or "", id or ""), BaseModel())


def citations(base: str | None) -> str:
    """Return BibTeX entries for the method, this library and, where it is known, the base model."""
    text = Path(__file__).with_name("citations.bib").read_text(encoding="utf-8")
    entries = {entry[2]: entry[1] for entry in re.finditer(r"(@\w+\{(\w+),.*?\n\})", text, re.DOTALL)}
    keys = [METHOD, LIBRARY, base_model(base).citation]
    return "\n\n".join(entries[key] for key in keys if key)
