"""Where videos come from, and the table of videos."""
