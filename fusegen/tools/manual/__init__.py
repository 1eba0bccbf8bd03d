"""The manual of the vocabulary, docs/ops: every page and picture follows from the declarations."""
