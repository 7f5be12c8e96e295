"""The bundled synthetic corpus, for the quickstart, the tests and benchmarks that need text but no download."""
