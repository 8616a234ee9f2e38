"""Raw files of any encoding, separator and form, read with file and line in every message."""
