"""Toolchain: spec files become built packages.

In: paths of specs. Out: folders with sources and libraries, through ninja. Only what is out of date is made
again, under a lock, and each library is stamped with what it was compiled from. `fusegen.tools` is next.
"""
