"""The vectors of the index: one file each, registered by itself; `registry` says how."""
