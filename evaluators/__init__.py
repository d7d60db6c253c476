"""Scoring protocols, one file each."""
