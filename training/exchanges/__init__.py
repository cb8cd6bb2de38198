"""Short exchanges written by hand, in Chinese and English: one message, its reply, and what may come next.

Where the little world is a grammar of reviews, this is a phrase book: every reply fits every wording of its
message, and what it names stands in the message. Nothing here knows the model.
"""

from training.exchanges.dialogue import dialogues, plain_reply

__all__ = ["dialogues", "plain_reply"]
