"""What families are built of."""
