"""The run: loop, checkpoints, validation, stopping, metrics."""
