"""What a model can do, and the proof that one is better."""
