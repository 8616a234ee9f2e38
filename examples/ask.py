"""Asks a trained stage-2 run: what it recommends, how it describes, what a critique changes.

Adds nothing to the package; about half a minute on two CPU cores, most of it compiling.

    python examples/ask.py MODEL_DIR [--user=ID] [--count=3]

The folder is that of a run, such as `runs/toy/ilm` of the quickstart.
"""

import argparse

import ilm_jax


def main(model_dir: str, user: str | None, count: int) -> None:
    """Prints a list, the same after a critique, and a description."""
    run = ilm_jax.open_run(model_dir)
    user = user or run.catalogue.user_ids[0]
    chosen = run.catalogue.sequence(run.catalogue.user_ids.index(user))
    print(f"{user} chose: {'; '.join(run.catalogue.titles[row] for row in chosen[-3:])}")
    first = run.recommend(user, count=count)
    for place, item in enumerate(first, 1):
        print(f"{place}. {item.title} [{item.id}]  log p {item.score:.2f}")
    print("Wanted: something shorter")
    for place, item in enumerate(run.recommend(user, critique="something shorter", count=count), 1):
        print(f"{place}. {item.title} [{item.id}]  log p {item.score:.2f}")
    print(run.describe(first[0].id))
    print(run.ask(f"Describe {{item:{first[0].id}}}.", max_new_tokens=24))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model_dir")
    parser.add_argument("--user")
    parser.add_argument("--count", type=int, default=3)
    words = parser.parse_args()
    main(words.model_dir, words.user, words.count)
