"""Numbers equal those of the reference implementations: goldens, and live where those import.

`make_<what>.py` writes a file of goldens/ from small random models of the reference (its version is
in the file); test_<what>.py needs no PyTorch for them. Logits to 1e-4 in float32, gradients with
respect to input embeddings to 1e-3 of their scale. Options that some case sets, two or more
configurations to a kind:

Decoders (llama2, llama3, qwen2, qwen3, mistral, gemma, gemma2, gemma3): keys for every head, for
groups, for all heads at once; heads wider and narrower than the model's width gives; biases of
attention; QK-norm; rotary wavelengths, linear and llama3 scaling, apart for local and global
layers; sliding windows on all layers, on some, by pattern and by list, and said but not used;
soft-caps of attention and of logits; query scale; norms before and after, with and without offset;
SwiGLU and GeGLU; tied and untied tables, scaled embeddings; config.json in the older and the
present form; the text part of a model that sees. Through the cache too.

Encoder-decoders (t5_relu_tied, flan_gated_untied): ReLU and gated GELU, tied and scaled or untied
output, numbers and reach of relative position buckets, depths that differ, ragged rows.

BERT (with and without a masked-LM head), the Q-Former of BLIP-2 (cross-attention in every layer or
every second, with and without text), sentence vectors of MiniLM and of a small random folder,
tokenizers of each kind, and stage 1's losses against their formulas in plain NumPy.
"""
