"""From a trained model to translations and scores."""
