"""Toolchain: spec files become built packages.

In: paths of specs. Out: folders with sources and libraries, built by ninja under a lock. Only what is out of
date is rebuilt. Each library has a stamp with hashes of its sources. `fusegen.tools` is next.
"""
