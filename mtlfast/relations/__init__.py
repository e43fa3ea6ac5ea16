"""What a fitted W says about its tasks."""

from mtlfast.relations._relations import Relations, relations

__all__ = ["Relations", "relations"]
