"""The network: ModernBERT over packed documents, bidirectional or causal."""

from clm_detour.model.documents import Documents, next_token_labels
from clm_detour.model.modernbert import ModernBertForPretraining, PretrainingOutput

__all__ = ["Documents", "ModernBertForPretraining", "PretrainingOutput", "next_token_labels"]
