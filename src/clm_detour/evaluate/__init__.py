"""Evaluation of models: fine-tuning on tasks with its statistics, probes, and filled masks."""
