"""What one engine request leads to: prompts, checks, the engine, the answer."""
