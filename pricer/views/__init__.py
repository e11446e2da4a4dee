"""Show values to a person: the terminal, the model card, the report, and their shared formats."""
