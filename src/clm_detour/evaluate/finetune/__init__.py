"""Fine-tuning an encoder on a task: documents -> examples -> states -> answers.

encoder.py    the network under test: token ids -> a state for each token
windows.py    words and texts -> token ids, long documents in overlapping windows
tagging.py    entities that do not overlap; spans.py: nested ones; labelling.py: classes of documents
problem.py    chooses among the three by the task's kind
training.py   one training run, best round by validation
run.py        one (model, task, seed): trained, scored and written down
experiment.py all of them, several at a time, resumed
"""
