"""How pushes become updates: pure, tensors in and tensors out; no process, clock, file or device choice."""
