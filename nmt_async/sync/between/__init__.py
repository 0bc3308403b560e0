"""What goes on between machines, each of which has a server of its own. Pure, like the rest of `nmt_async.sync`."""
