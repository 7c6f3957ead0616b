"""Captions written by a language model that sees a clip's frames: asked, checked, paid for once. No torch here."""
