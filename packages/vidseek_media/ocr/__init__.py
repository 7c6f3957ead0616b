"""On-screen text: frames to lines of text, lines to segments."""
