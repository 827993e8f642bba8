"""What everything else stands on: errors, settings, names, digests, files, charts, reports."""
