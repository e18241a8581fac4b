"""Why is a case slow? One contender under one tool at a time: `python -m harness.profiling`."""
