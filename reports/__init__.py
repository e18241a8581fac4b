"""Records to pages: a static site that opens from a file, needs no server, no network and no torch.

It reads what `harness.record` wrote and nothing else, so it can be built on any machine from any machine's run.
"""
