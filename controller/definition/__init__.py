"""What a person writes down, turned into what the control plane can trust."""
