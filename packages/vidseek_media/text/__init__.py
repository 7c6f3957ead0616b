"""Captions and transcripts that lie beside videos."""
