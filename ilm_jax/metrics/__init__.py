"""Pure functions from predictions to numbers: ranking, texts, ratings, intervals."""
