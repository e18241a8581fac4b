"""What the machine did while it was measured: GPUs by NVML, processors by the kernel's counters, energy of a call."""
