"""Starts the counters in each Python process that has this folder on its path."""

from bench.growing.counting import start

start()
