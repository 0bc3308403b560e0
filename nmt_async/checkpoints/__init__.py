"""Trained models and states of training in folders, and the mean of several models."""
