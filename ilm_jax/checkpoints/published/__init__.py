"""Published weights: Hugging Face, T5X, by families of architectures."""
