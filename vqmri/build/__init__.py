"""params.yaml to plain arguments and objects, one module per stage."""
