"""How old data is, and how far its policy is from the one that learns."""
