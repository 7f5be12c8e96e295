"""The forms in which annotated data sets are handed round. A form only parses; what a task makes of it is `tasks.reading`'s."""
