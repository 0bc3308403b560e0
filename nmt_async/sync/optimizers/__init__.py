"""What the server does with the gradient of an update: each optimizer in a file of its own, by name."""
