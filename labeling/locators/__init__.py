"""Where in an image is what a fact names? One file a locator; ``base`` has what they share."""

from labeling.locators.base import Locator, Sought

__all__ = ["Locator", "Sought"]
