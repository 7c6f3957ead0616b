"""Which videos and captions belong on one side of a split."""
