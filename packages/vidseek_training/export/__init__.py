"""The champion to ONNX, behind the parity gate."""
