"""Slips in who may be spoken of by written texts, and where."""

from tests.planted import Fault

FAULTS = (
    Fault(
        "who has a text is asked of the item alone",
        "ilm_jax/data/examples/narratives.py",
        "later = (positions > 0)",
        "later = (positions >= 0)",
        "tests/tasks/test_regen.py -k who_has_a_text",
    ),
    Fault(
        "texts that name what is held out train",
        "tasks/histories.py",
        "keep &= texts.may_train(kind, users, positions)",
        "pass",
        "tests/data/test_no_leak.py -k texts_about_purchases",
    ),
    Fault(
        "rows of LUMEN say what is held out",
        "tasks/lumen.py",
        "return bool(self.texts.may_train(kind, np.array([user]), np.array([position]))[0])",
        "return True",
        "tests/data/test_no_leak.py -k 'texts_about_purchases or comes_again'",
    ),
    Fault(
        "a text is about the purchase that trains",
        "ilm_jax/data/examples/telling.py",
        "if of_any and item in held_back:",
        "if False:",
        "tests/data/test_no_leak.py -k comes_again",
    ),
    Fault(
        "profiles name what their users choose last",
        "tasks/elm24.py",
        " and not self._written.tells(row)",
        "",
        "tests/data/test_no_leak.py -k texts_about_users",
    ),
    Fault(
        "titles that are no names are names",
        "ilm_jax/data/examples/telling.py",
        "found -= no_names",
        "found -= set()",
        "tests/data/test_telling.py",
    ),
    Fault(
        "a held-out item's words are trained behind it",
        "tasks/lumen.py",
        "if self.splits.item_fold[item] != TRAIN:",
        "if False:",
        "tests/tasks/test_lumen.py -k held_out",
    ),
    Fault(
        "earlier critiques of held-out items are shown",
        "tasks/lumen.py",
        'self._critique("train", user, place)',
        'self._critique("test", user, place)',
        "tests/tasks/test_lumen.py",
    ),
)
