"""`fusegen report`: one HTML page about chains, or about a model, that needs no network and no script."""
