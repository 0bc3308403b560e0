"""How fast training is here, beside what it could be at best and beside the usual ways."""
