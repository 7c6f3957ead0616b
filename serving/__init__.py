"""The HTTP service: routes, the batcher behind them, and the BentoML service that they are mounted in."""
