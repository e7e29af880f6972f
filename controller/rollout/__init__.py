"""What is decided for a whole deployment: rolling out, scaling, going away."""
