"""ilm_jax: training item-language models with JAX and Flax, TPU first."""

__version__ = "0.1.0"
