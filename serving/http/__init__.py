"""HTTP: connections, limits, headers, bodies, errors."""
