"""Composer callbacks: everything that happens in a phase besides the steps."""
