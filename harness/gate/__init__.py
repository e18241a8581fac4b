"""Does a change make something slower or wrong? Two revisions side by side: `python -m harness.gate`."""
