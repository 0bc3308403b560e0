"""What is looked at before a long run: the machine, the data, what is saved, and whether the longest batches fit."""
