"""How likely a hit is right, and whether queries and clips still are what they were."""
