"""What an adapter is: the base LM it plugs into, its files, its checks and its arithmetic. No training code."""
