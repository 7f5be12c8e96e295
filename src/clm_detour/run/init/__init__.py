"""`clm-detour init`: look at the files of a user and write a commented recipe for them.

files.py     paths -> sources: which files belong together
look.py      a source -> its text field, documents and tokens, from a bounded sample
sizes.py     tokens -> durations, batches and rates
recipe.py    the YAML
command.py   the verb
"""
