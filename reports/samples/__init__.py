"""What tested trials took single images for: gathered, measured and compared."""
