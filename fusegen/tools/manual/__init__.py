"""The manual of the ops, docs/ops: generates every page and picture from the declarations."""
