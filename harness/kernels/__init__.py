"""The GPU tier's kernels as machine code: resources, occupancy, instructions, and what differs between revisions."""
