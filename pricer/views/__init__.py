"""Values into text for a person: the terminal, the model card, the report, and the formats they share."""
