"""Networks that measure pictures, in the host's folders and memory."""
