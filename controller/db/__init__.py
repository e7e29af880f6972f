"""The database room: rows in, nouns out; nothing here decides what should happen."""
