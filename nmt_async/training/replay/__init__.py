"""A run computed again from its journals, on one process, and whether its checkpoint is the same, bit for bit."""
