"""Studies: the same data under several ways of updating, what came out, and what it says about a claim."""
