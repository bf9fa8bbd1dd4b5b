"""Adapters and tuned models in the formats of other tools, both ways."""
