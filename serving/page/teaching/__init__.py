"""What people teach the model: captions of suggested clips, and verdicts on suggested hits."""
