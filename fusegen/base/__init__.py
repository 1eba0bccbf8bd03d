"""Base: what every other package may use, and what uses none: errors, paths, files, the stamp of a library.

`fusegen.atoms` is next.
"""
