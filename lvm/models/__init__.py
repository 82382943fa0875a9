"""Latent structures: what the hidden variable is."""
