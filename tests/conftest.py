"""For all rooms: properties are checked without a clock, since the machines that run them are shared and noisy."""

from hypothesis import settings

settings.register_profile("qwen_aio", deadline=None)
settings.load_profile("qwen_aio")
