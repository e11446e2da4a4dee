"""A Hugging Face Hub on the loopback interface: enough of its protocol for the real client, and faults on demand."""
