"""Checkpoints that the training code of ModernBERT wrote with Composer, as Hugging Face folders."""
