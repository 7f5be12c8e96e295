"""Readers of the file formats of annotated data sets. `tasks/reading.py` turns examples into documents."""
