"""What chooses actions: fixed policies, those that plan, and those that were learned."""
