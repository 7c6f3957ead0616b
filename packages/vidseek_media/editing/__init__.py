"""What an editor needs of a moment: its frames by number and timecode, and the moment as a file of its own."""
