"""The rendered demo world, and the script that trains the small backbones on it."""
