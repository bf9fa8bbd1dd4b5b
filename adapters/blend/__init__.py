"""Several adapters into one: ways to combine their ΔW, and how the result is written as A and B again."""
