"""The evaluation's tasks: one short file per family, registered by name."""
