"""Frames, images and texts to unit vectors, with ONNX Runtime and without torch."""
