"""Layout data sets collected with the host, and layouts predicted from its text encoder."""
