"""Is this machine fit to benchmark? What is looked at, and what each reading means: `python -m harness.doctor`."""
