"""Management commands of Django; nothing but them may live below."""
