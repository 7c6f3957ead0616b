"""Captions and pairs to a LoRA adapter, proven better, to a merged ONNX bundle. The only room with torch."""
