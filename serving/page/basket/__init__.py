"""The basket: moments that a visitor keeps for an editor."""
