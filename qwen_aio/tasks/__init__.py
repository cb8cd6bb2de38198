"""From folders in prompts/ to prompts, and from scores back to results. No torch, no HTTP."""
