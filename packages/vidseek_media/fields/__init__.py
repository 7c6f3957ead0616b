"""Fields of one's own: columns of manifests and files of captions that params.yaml declares, and tags."""
