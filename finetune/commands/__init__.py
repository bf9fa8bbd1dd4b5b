"""One module per command of `woodshed`, imported only when the command runs."""
