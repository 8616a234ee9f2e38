# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
# ---

# %% [markdown]
# # From raw files to answers
#
# An item-language model in five cells, on two CPU cores or on an accelerator: item vectors from
# interactions, a small language model (stage 0), a Q-Former that aligns vectors with texts
# (stage 1), and its training through the frozen language model (stage 2). About six minutes on two
# cores. The data are a generated world of 1,980 items; `DATASET="custom/shop"` with
# `DATA_DIR="folder"` takes files of your own instead.

# %%
# In Colab: !pip install "ilm_jax @ git+https://github.com/…/ilm_jax"
import os
import pathlib

import ilm_jax

folder = pathlib.Path(os.environ.get("ILM_NOTEBOOK", "runs"))
steps = int(os.environ.get("ILM_NOTEBOOK_STEPS", "300"))

# %% [markdown]
# Item and user vectors by iALS, from training interactions alone.

# %%
table = ilm_jax.fit_cf("toy", output=folder / "cf.safetensors")
print(table.item.shape, table.user.shape)

# %% [markdown]
# The three stages. Each call goes on where it was interrupted.

# %%
shared = {"DATASET": "toy", "CF_TABLE": folder / "cf.safetensors", "TRAIN_STEPS": steps}
ilm_jax.train("tiny/stage0.gin", MODEL_DIR=folder / "lm", TRAIN_STEPS=steps)
ilm_jax.train("tiny/stage1.gin", MODEL_DIR=folder / "qformer", **shared)
metrics = ilm_jax.train(
    "tiny/stage2_ilm.gin",
    MODEL_DIR=folder / "ilm",
    LM_FROM=folder / "lm",
    QFORMER_FROM=folder / "qformer",
    **shared,
)
print(f"validation: {metrics['loss']:.3f} nats per target token")

# %% [markdown]
# A recommendation, a critique, and a description.

# %%
run = ilm_jax.open_run(folder / "ilm")
user = run.catalogue.user_ids[0]
for item in run.recommend(user, count=3):
    print(item)
print(run.recommend(user, critique="something quieter", count=1))
print(run.describe(run.catalogue.item_ids[0]))
