"""Everything that sends bytes to an upstream. RULE: only `engine` imports from here."""
