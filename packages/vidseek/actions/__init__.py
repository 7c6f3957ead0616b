"""What the command does beside the stages."""
