"""Training sequences from tokenised articles."""

import logging
from typing import Any

import numpy as np

from headtohead.models.batches import Example
from headtohead.records import DataError
from headtohead.tokens.layout import Layout

log = logging.getLogger(__name__)


def make_examples(rows: Any, layout: Layout) -> list[Example]:
    """Training sequences from tokenised rows (columns id, article, summary), without those that do not fit.

    Raises:
        DataError: none fits.
    """
    examples: list[Example] = []
    for row in rows:
        sequence, prompt = layout.example(row["article"], row["summary"])
        if layout.fits(sequence):
            examples.append((np.array(sequence, np.int32), prompt))  # a ninth of a list's memory
    if not examples:
        raise DataError(f"no summary fits: tokenizer.max_length {layout.max_length} and generate.max_new_tokens "
                        f"{layout.new_tokens} are too small for all {len(rows):,}; raise both")
    if left_out := len(rows) - len(examples):
        log.warning("%d of %d rows are left out: their summaries do not fit in tokenizer.max_length", left_out,
                    len(rows))
    return examples
