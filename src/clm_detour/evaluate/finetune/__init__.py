"""Fine-tuning an encoder on a task.

batch.py            examples and batches
windows.py          words and texts -> token ids; long documents are cut into overlapping windows
classifier.py       a head for classes of documents
tagger.py           a head for entities that do not overlap
span_classifier.py  nested entities: an encoder with one of two heads over spans
biaffine.py         a head over spans: biaffine
crf_biaffine.py     a head over spans: gated BiLSTM, CRF and biaffine, as in the authors' benchmark
crf.py              a linear-chain CRF over BIOUL tags
task_model.py       the choice of the head by the kind of task
loop.py             the training loop
training.py         one training run with validation; the best round answers the test split
run.py              one run (a model, a task, a seed) and its files
experiment.py       all runs, several at a time, resumed after an interruption
"""
