"""Checkpoints of Composer as they were written by the training code of ModernBERT, as Hugging Face folders."""
