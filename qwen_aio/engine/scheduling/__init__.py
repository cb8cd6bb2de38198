"""Sequences: which of them run, which rows a step computes, what comes of their logits."""
