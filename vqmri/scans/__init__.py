"""Files to normalised volumes."""
