"""What the prober knows of itself, and how it comes to know it."""
