"""How much memory a training step takes: measured, simulated on the meta device, predicted, and fitted under a cap."""
