"""Pairs of clips and captions, and what a training step sees of them."""
