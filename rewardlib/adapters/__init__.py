"""Sightline's rewards in other people's trainers, a few lines each. No adapter imports its host unless it is used."""
