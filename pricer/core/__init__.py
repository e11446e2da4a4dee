"""What pricer knows: prices, prompts, scores and selection. Standard library and numpy only; no I/O, no clock."""
