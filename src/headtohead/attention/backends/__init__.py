"""Ways to compute attention, one module each, and the float32 reference that all are tested against.

Each has a `name`, a `capability`, and `build(job, left_padding)`, which makes what is the same for all layers of a
forward pass (a mask, a bias, slopes) and returns the attention itself: q [batch, heads, queries, head_dim], k and v
[batch, heads, keys, head_dim] in, [batch, heads, queries, head_dim] out.
"""
