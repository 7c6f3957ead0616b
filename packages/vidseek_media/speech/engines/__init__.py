"""Engines that turn speech into text, one file each. A file registers its engine; its name is the one in params.yaml."""
