"""Measure what a model remembers of its training data: secrets of canaries, and membership of rows."""
