"""How the bundled model was made: `python -m training --data DIR --out DIR --work DIR`, rerunnable and resumable.

Not part of the installed package. It imports the product (prompts, encoding); of it, only benchmarks/safety imports
something: what may be trained on and what may not.
"""
