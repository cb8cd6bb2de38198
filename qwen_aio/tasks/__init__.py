"""From folders in prompts/ to prompts, and from scores to decisions. No torch, no HTTP."""
