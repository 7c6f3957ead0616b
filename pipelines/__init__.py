"""One thin script for each DVC stage, named as the stage."""
