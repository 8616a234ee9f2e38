"""Models and checkpoints of others: read into this framework's names, and written back."""
