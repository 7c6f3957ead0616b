"""params.yaml: read, checked, commented and changed."""
