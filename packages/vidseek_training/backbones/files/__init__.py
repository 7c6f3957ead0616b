"""A backbone's folder: its JSON files, preprocessing and tokenizer."""
