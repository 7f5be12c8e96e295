"""The bundled synthetic corpus, for a quickstart, tests and benchmarks without a download."""
