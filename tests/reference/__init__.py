"""Slow and obvious versions of what the library computes, and the cases on which both are compared."""
