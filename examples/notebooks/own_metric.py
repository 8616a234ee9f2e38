# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
# ---

# %% [markdown]
# # A metric of one's own
#
# What is added from outside registers itself; nothing in the package is edited. Here a metric of
# generated texts joins the others of `ilm evaluate`, with its interval. About three minutes on two
# CPU cores, most of it preparing the generated world and training a small language model on it.

# %%
# In Colab: !pip install "ilm_jax @ git+https://github.com/…/ilm_jax"
import os
import pathlib

import numpy as np

import ilm_jax
from ilm_jax.evaluation.evaluate import evaluate
from ilm_jax.evaluation.evaluator import EvaluationConfig

folder = pathlib.Path(os.environ.get("ILM_NOTEBOOK", "runs"))
steps = int(os.environ.get("ILM_NOTEBOOK_STEPS", "300"))


# %% [markdown]
# A metric is a function of predictions and targets: one number for each text.


# %%
def words_per_text(predictions, targets):
    return np.array([len(text.split()) for text in predictions], float)


ilm_jax.register_metric(ilm_jax.Metric("words", "text", words_per_text, higher_is_better=None))

# %% [markdown]
# A model to measure: a language model of the generated world, without item vectors.

# %%
ilm_jax.train("tiny/stage0.gin", MODEL_DIR=folder / "lm", TRAIN_STEPS=steps)

# %% [markdown]
# Its metrics on held-out items and users, the new one among them.

# %%
lengths = {"TASK_FEATURE_LENGTHS": {"inputs": 100, "targets": 36}}
run = ilm_jax.open_run(folder / "lm", bindings=lengths)
record = evaluate(run.model, folder / "evaluation", EvaluationConfig(users=32, texts=16))
for name, interval in record["intervals"].items():
    print(f"{name:20} {interval['mean']:.4f}  [{interval['low']}, {interval['high']}]")
