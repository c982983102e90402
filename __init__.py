"""PgM: frozen encoders once, features in a checkable cache, small multimodal heads trained from it."""
