"""Tools: what a person runs on built packages: `check`, `bench`, `tune` and the manual of the ops."""
