"""Is this adapter good? Measures, each with its interval and its law, and the verdict drawn from them."""
