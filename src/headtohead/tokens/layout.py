"""Article, separator, summary, end-of-text in one causal sequence; what does not fit is cut from the article's end."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """How article and summary become one sequence, the same way in training, in the loss and in generation.

    Every article gets the same room, whatever its summary. Were it cut to fit its summary, every long training
    sequence would end at `max_length`, and learned positions would learn to end there.

    Args:
        separator: token ids between article and summary.
        end: the end-of-text token's id.
        max_length: tokens of the whole sequence; None sets no limit.
        new_tokens: how many of them are kept free for the summary and end-of-text.

    Raises:
        ValueError: `max_length` leaves no room for an article.
    """

    separator: list[int]
    end: int
    max_length: int | None
    new_tokens: int

    def __post_init__(self) -> None:
        if self.room is not None and self.room < 1:
            raise ValueError(f"{len(self.separator)} separator tokens and {self.new_tokens} for the summary leave no "
                             f"room for an article in {self.max_length}")

    @property
    def room(self) -> int | None:
        """Tokens of an article that are kept; None if there is no limit."""
        return None if self.max_length is None else self.max_length - len(self.separator) - self.new_tokens

    def prompt(self, article: list[int]) -> list[int]:
        """The article, as far as there is room for it, and the separator."""
        return article[:self.room] + self.separator

    def example(self, article: list[int], summary: list[int]) -> tuple[list[int], int]:
        """The whole sequence, and how many of its tokens are prompt. The summary is never cut: see `fits`."""
        prompt = self.prompt(article)
        return prompt + summary + [self.end], len(prompt)

    def fits(self, sequence: list[int]) -> bool:
        """Whether a sequence is no longer than `max_length`."""
        return self.max_length is None or len(sequence) <= self.max_length
