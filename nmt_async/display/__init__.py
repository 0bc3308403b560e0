"""What a run looks like: the console display and its pictures."""
