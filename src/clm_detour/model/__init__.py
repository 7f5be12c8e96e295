"""The network: ModernBERT over packed documents, bidirectional or causal, with a head for pretraining or classification."""

from clm_detour.model.classification import (
    ModernBertForSequenceClassification,
    ModernBertForTokenClassification,
)
from clm_detour.model.documents import Documents, next_token_labels
from clm_detour.model.modernbert import ModernBertForPretraining, PretrainingOutput

__all__ = [
    "Documents",
    "ModernBertForPretraining",
    "ModernBertForSequenceClassification",
    "ModernBertForTokenClassification",
    "PretrainingOutput",
    "next_token_labels",
]
