"""Process plumbing: how a child starts, what it shares with its parent, and how it is looked after."""
