"""Helpers that know nothing of this project's models or data."""
