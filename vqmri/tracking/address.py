"""Addresses of servers, without the passwords that may stand in them."""

import os
import re
from collections.abc import MutableMapping
from urllib.parse import unquote, urlsplit, urlunsplit

from vqmri.errors import InputError

URI, USER, PASSWORD = "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"

_USER = re.compile(r"(?<=://)[^\s/]*@")
_ASKED = re.compile(r"(?i)((?:password|passwd|secret|token|key)[\w-]*=)[^&\s'\"]+")


def shown(text: object) -> str:
    """A text, as an error's, whose addresses have lost `user:password@` and `password=…`."""
    return _ASKED.sub(r"\1***", _USER.sub("", str(text)))


def part_from_credentials(environment: MutableMapping[str, str] = os.environ) -> None:
    """Take the user and password out of a tracking server's address, to variables of their own.

    MLflow prints and logs the address, and sends the variables as the same credentials.
    Raises InputError for an address that is none.
    """
    try:
        parts = urlsplit(environment.get(URI, ""))
    except ValueError:  # whose text may hold the password
        raise InputError(
            f"{URI} = {shown(environment[URI])} is no address. Set it to one, as "
            "http://127.0.0.1:5000, or unset it to keep runs in mlruns/ of the project."
        ) from None
    user, at, place = parts.netloc.rpartition("@")
    if not at or parts.scheme not in ("http", "https"):
        return
    name, colon, password = user.partition(":")
    if colon:
        environment.update({USER: unquote(name), PASSWORD: unquote(password)})
    environment[URI] = urlunsplit(parts._replace(netloc=place))
