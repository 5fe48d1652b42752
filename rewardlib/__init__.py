"""Rewards and judges for multimodal RL. Imports nothing else of Sightline, and no torch."""
