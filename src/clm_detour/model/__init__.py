"""The network: ModernBERT over packed documents, bidirectional or causal, with a head for pretraining or classification, or without."""

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
