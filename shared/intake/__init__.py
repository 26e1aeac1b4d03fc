"""Files on their way in: receiving one, unpacking archives, and looking at a study again."""
