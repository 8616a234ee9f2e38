"""A trained model that answers: requests, conversations, corpora, exported programs."""
