"""What crosses from a worker to the server in the place of a whole float32 gradient, and what stays behind."""
