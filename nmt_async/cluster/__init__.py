"""Where pushes come from: the worker, processes over shared memory, and a simulated cluster in virtual time."""
