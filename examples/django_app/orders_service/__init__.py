"""The modern orders service: a process of its own, which knows its users by the tokens of the monolith."""
