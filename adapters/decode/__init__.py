"""The decode engine: text states in, codec tokens out, the same tokens as transformers' `generate`, several times sooner."""
