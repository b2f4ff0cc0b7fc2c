"""A party's side of a pilot."""
