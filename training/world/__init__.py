"""The small world the demo model lives in: reviews, feelings and small talk, in Chinese and English.

All text is drawn from the phrase tables beside this file; nothing here knows the model.
"""

from training.world.dialogue import Dialogue, beyond_reply, dialogues
from training.world.sentences import labelled_sentences, summaries

__all__ = ["Dialogue", "beyond_reply", "dialogues", "labelled_sentences", "summaries"]
