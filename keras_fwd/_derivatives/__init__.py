"""Linearizations by two reverse passes, and what is made of them; the only tapes are here."""
