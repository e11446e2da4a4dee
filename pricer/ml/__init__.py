"""Everything that needs a tensor: base models, tokens, fine-tuning and prediction. Never imports stores."""
