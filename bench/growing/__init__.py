"""What an archive that grows costs."""
