"""Speech: the sound of a video to the spans in which somebody speaks, and these to text."""
