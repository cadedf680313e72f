"""Listeners of a build's events: what a person sees while it runs."""

from builder.progress.choose import open_listener

__all__ = ["open_listener"]
