"""From documents to batches: sources -> tokens -> shards -> packed rows -> mixture -> objective -> loader."""
