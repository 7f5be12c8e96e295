"""The files of a run: their paths, and the JSON that one part writes and another reads."""
