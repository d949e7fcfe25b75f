"""What a variant costs: time, memory, operations and the GPU's own counters.

`machine` and `nvml` import no torch, so that the `fingerprint` stage stays under a second;
for the same reason nothing is imported here.
"""
