"""Pictures and clips of requests to frames."""
