"""Compiled functions that serve several families."""
