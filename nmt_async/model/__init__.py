"""The models: configuration and presets, the Transformer, the recurrent model, initialisation, loss."""
