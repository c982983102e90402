"""One run: what is asked, the loop, the record, and what is read back of it."""
