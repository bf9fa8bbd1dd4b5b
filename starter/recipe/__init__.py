"""How the starter is made: composer, codec, language model, evaluation. Nothing imports it; each step is a command."""
