"""The real coordinator and the real rules in virtual time, over adapters that live in memory."""
