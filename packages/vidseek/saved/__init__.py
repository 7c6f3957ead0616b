"""Saved searches: what a publish brings for them is listed, in a feed, and sent to a webhook."""
