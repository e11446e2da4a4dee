"""Embedded assets: the sample data, the tiny base model, and the scripts that made both."""
