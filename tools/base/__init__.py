"""How the embedded base model was made: `python -m tools.base --out DIR`."""
