"""What a phrase asks a picture to show, and which part of what was read there says it."""
