"""pricer: fine-tune a language model to price products, and pick its best checkpoint by measurement."""

__version__ = "0.1.0"
