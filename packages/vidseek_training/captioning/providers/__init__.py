"""One module for each provider of captions: `PROVIDER` in it registers name, key, models, limits and factory."""
