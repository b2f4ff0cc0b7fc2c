"""The `statfed` command: thin. It reads options, calls the rooms below, and prints."""
