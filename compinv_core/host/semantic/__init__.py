"""Words that a person has, looked at and repaired with the host's text encoder."""
