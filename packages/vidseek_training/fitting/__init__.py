"""Training: the loop, the loss, adapters, precision, several processes."""
