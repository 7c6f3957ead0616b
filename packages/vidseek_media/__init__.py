"""Videos into clips into frames: sources, probing, cutting, decoding; the ids, records and errors all rooms share."""
