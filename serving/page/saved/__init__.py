"""Saved searches: the button that saves one, and the page that shows what was new."""
