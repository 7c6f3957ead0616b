"""Tables to pass or stop: Great Expectations suites and their reports."""
