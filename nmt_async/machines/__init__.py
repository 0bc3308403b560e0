"""Machines that train together: how they find each other, hear of each other's end, and exchange what they have.

The engine is torch.distributed: its TCP store is where they meet, its Gloo moves the bytes. What an exchange means is
in `nmt_async.sync.between`, what a machine does with it in `nmt_async.cluster.machine`.
"""
