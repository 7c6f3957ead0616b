"""Collections: what they hold, and how they are built, verified and published."""
