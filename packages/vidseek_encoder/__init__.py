"""Embeds frames, images and texts as unit vectors, with ONNX Runtime and without torch."""
