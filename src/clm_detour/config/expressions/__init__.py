"""The small languages of a source's settings: field paths, conditions, templates and file formats."""
