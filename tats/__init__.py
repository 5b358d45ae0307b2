"""TATS: long, token-based video generation."""
