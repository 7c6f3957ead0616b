"""Captions for clips: from files, titles, transcripts and language models. No torch here."""
