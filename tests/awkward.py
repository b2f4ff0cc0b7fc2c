"""Texts that a writer of a format gets wrong: quotes, ends of lines, control characters, its own signs."""

from hypothesis import strategies as st

CHARACTERS = st.characters(exclude_categories=["Cs"]) | st.sampled_from("\"'\\\x7f\x00\x1b\n\r\t\x85\u2028 .,#=[]{}")


def texts(min_size: int = 0, max_size: int = 12) -> st.SearchStrategy[str]:
    """Any text, most of it with characters that have to be escaped somewhere."""
    return st.text(CHARACTERS, min_size=min_size, max_size=max_size)
