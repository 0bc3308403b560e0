"""Lines to lines: files, batches, engines and processes around a search."""
