"""A CUDA card that is not there: host code runs as it is, tensors of the card hold no numbers."""
