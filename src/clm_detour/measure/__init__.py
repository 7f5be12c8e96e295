"""Measures of a trained encoder: hidden states, losses and predictions."""
