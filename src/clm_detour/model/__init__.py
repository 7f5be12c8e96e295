"""Encoders over packed documents, bidirectional or causal, for pretraining, classification or states."""

from clm_detour.model.classification import (
    ModernBertForSequenceClassification,
    ModernBertForTokenClassification,
)
from clm_detour.model.documents import Documents, next_token_labels
from clm_detour.model.encoder import ModernBertModel
from clm_detour.model.modernbert import ModernBertForPretraining, PretrainingOutput

__all__ = [
    "Documents",
    "ModernBertForPretraining",
    "ModernBertForSequenceClassification",
    "ModernBertForTokenClassification",
    "ModernBertModel",
    "PretrainingOutput",
    "next_token_labels",
]
