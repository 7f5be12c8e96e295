"""Expressions in the settings of a source: fields, conditions and templates; and the formats of files."""
