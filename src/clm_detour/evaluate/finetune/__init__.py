"""Fine-tuning an encoder on a task.

batch.py            examples and batches
windows.py          words and texts -> token ids; long documents are cut into overlapping windows
classifier.py       a head for classes of documents
tagger.py           a head for entities that do not overlap
span_classifier.py  a head for nested entities
task_model.py       the choice among the three heads by the kind of task
loop.py             the training loop
training.py         one training run with validation; the best round answers the test split
run.py              one run (a model, a task, a seed) and its files
experiment.py       all runs, several at a time, resumed after an interruption
"""
