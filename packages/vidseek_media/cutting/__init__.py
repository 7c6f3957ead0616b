"""Videos to clips."""
