"""OpenAI's shapes: chat completions, completions, models. What they leave out is refused by name."""
