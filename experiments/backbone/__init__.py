"""Priors that learn from the same latents of one trained encoder."""
