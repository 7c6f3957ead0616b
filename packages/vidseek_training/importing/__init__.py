"""Models that other projects adapted."""
