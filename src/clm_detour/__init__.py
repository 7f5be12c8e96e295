"""clm-detour: make a ModernBERT encoder the best encoder of a domain, by a causal-language-modelling detour."""

__version__ = "0.1.0"
