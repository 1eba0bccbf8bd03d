"""Tools for built packages: `check`, `bench`, `tune` and the manual of the ops."""
