"""What a cluster would do: simulations in virtual time without gradients, and profiles of real runs."""
