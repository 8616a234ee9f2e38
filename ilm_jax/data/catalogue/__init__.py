"""Items, users and interactions, and what of them may be seen by whom."""
