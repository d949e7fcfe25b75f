"""The published benchmark, `h2h bench`: GPT-2 with each variant beside transformers and the kernels' own libraries.

`suite` measures on a GPU and writes rows; `page` makes a page and figures of them, anywhere.
"""
