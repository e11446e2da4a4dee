"""Reads Items from a file or a Hub data set."""
