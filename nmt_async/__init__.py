"""nmt-async: trains Transformer translation models with synchronous, asynchronous and hybrid updates."""

__version__ = "0.1.0"
