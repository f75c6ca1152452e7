"""The stages: load → observe → lower → compose → verify. `pipeline` shows them on one screen."""
