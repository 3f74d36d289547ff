"""Labelled states as tensors, and back."""
