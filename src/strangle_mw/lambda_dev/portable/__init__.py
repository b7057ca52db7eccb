"""On the path of a function's process where `awslambdaric` has no native part; not imported here."""
