"""What a stale gradient is worth, and what an update does because its gradients are stale."""
