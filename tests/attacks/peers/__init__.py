"""Rules of peers, as documented, put before the same attacks."""
