"""Messages of people in danger, and messages that only sound like it, in Chinese and English.

All text is drawn from the phrase tables beside this file; nothing here knows the model or the test set.
"""

from training.safety.messages import messages
from training.safety.tables import SAFETY_LABELS, SafetyLabel, passages

__all__ = ["SAFETY_LABELS", "SafetyLabel", "messages", "passages"]
