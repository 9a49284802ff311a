"""What both markets need: networks, days, batches of episodes, and the views through which they are played."""
