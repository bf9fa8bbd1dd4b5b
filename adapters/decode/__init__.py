"""The decode engine: text states in, codec tokens out; transformers' own tokens, several times sooner."""
