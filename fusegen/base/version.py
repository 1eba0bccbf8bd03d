"""The version, and the format of generated packages, in one place."""

__version__ = "0.1.0"
#: How generated packages call the runtime. A package of another format is refused, and built again.
#: tests/runtime/test_package_format.py says when to raise it.
FORMAT = 5
