"""The runtime type checker of the tests."""

from beartype import BeartypeConf, beartype

# an int where a float is asked for is fine, as it is for mypy (PEP 484)
checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
