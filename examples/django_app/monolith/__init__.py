"""The monolith of the demo: an ordinary Django project whose orders are moving out."""
