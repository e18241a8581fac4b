"""`toy` is material for tests, a whole second operation, not a suite."""

collect_ignore = ["toy"]
