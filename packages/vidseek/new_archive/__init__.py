"""`vidseek init`: look at a source, propose settings, say what they cost, and write the folder of a new archive."""
