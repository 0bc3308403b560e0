"""How probable, and how good, translations are."""
