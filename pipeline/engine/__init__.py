"""How samples become segments: what is there, what is to be made, who makes it."""
