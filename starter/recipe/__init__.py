"""How the starter is made: composer, codec trainer, LM trainer, evaluation. Nothing imports it; each step is a command."""
