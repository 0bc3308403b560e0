"""The generated English-German corpus of the demo and of many tests; no part of training."""
