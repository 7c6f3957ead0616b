"""Videos into clips into frames: sources, probing, cutting, decoding, and the ids, records and errors all rooms share."""
