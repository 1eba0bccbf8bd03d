"""A model against itself fused: `fusegen check model.py:Class` and `fusegen bench model.py:Class`."""
