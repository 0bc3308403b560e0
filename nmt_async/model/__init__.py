"""The model: configuration and presets, the Transformer, initialisation, loss."""
